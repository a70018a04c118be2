"""Where nothing can be isolated, the sandbox says why and what would mend it, and leaves nothing behind."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from backendai.model.errors import Failure
from backendai_runtime_sandbox import seccomp
from backendai_runtime_sandbox.config import Config
from backendai_runtime_sandbox.mends import mend
from backendai_runtime_sandbox.plugin import Sandbox

pytestmark = pytest.mark.system
PROBE = """
import asyncio, sys
from backendai.model.errors import Failure
from backendai_runtime_sandbox.config import Config
from backendai_runtime_sandbox.plugin import Sandbox
sandbox = Sandbox(Config(state_dir=sys.argv[1]))
try:
    print(asyncio.run(sandbox.probe()).engine)
except Failure as failure:
    print(failure.code, failure.message)
"""


def probed(root: Path, before: str = "", *options: str) -> str:
    """Return what the sandbox says of itself in a user namespace of its own, in which *before* was done first."""
    unshare = shutil.which("unshare")
    assert unshare, "util-linux has unshare"
    made = subprocess.run([unshare, "--user", "--map-root-user", *options, "sh", "-c", f'{before or ":"} && exec "$@"', "sh",
                           sys.executable, "-c", PROBE, str(root)], capture_output=True, text=True, timeout=120)
    if "unshare failed" in made.stderr:
        pytest.skip("this user may not make user namespaces")
    return made.stdout + made.stderr


def test_who_may_not_make_namespaces_is_told_what_would_allow_it(root: Path) -> None:
    said = probed(root, "echo 0 > /proc/sys/user/max_user_namespaces")
    assert said.startswith("unavailable This user may not make namespaces; run the agent as root, or allow it: `sysctl -w user.max_user_")
    assert "(clone namespaces: No space left on device)" in said


def test_who_sees_only_a_part_of_proc_is_told_where_to_run(root: Path) -> None:
    said = probed(root, "mount --bind /dev/null /proc/kallsyms", "--mount")
    assert said.startswith("unavailable A fresh /proc may not be mounted here, as in most containers; run the agent outside of one")


def test_the_root_of_a_user_namespace_is_an_ordinary_user(root: Path) -> None:
    assert "(ordinary user" in probed(root)


async def test_other_machines_are_told_to_use_an_engine(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seccomp, "MACHINES", {})
    with pytest.raises(Failure, match="x86_64 and aarch64 only; use a container engine"):
        await Sandbox(Config(state_dir=str(root))).probe()


async def test_a_folder_that_cannot_be_written_is_named(root: Path) -> None:
    (root / "file").write_text("")
    with pytest.raises((Failure, OSError)) as caught:
        await Sandbox(Config(state_dir=str(root / "file" / "state"))).probe()
    assert "file" in str(caught.value)


@pytest.mark.parametrize(("said", "told"), [
    ("exec nonesuch: No such file or directory",
     "nonesuch cannot be run: No such file or directory. Look at the command and at the image."),
    ("chdir /gone: No such file or directory", "The folder /gone cannot be used to work in: No such file or directory."),
    ("protect /: Function not implemented", "The sandbox needs Linux 5.12 or newer to make mounts read-only; use a container engine here. "
                                            "(protect /: Function not implemented)"),
    ("enter cgroup: No such process", "The sandbox could not be set up: enter cgroup: No such process."),
    ("", "The sandbox could not be set up: shim: it said nothing."),
])
def test_what_the_shim_says_becomes_a_sentence(said: str, told: str) -> None:
    assert mend(said) == told
