"""The static init, built with the flags of its Makefile and run as a child."""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[3] / "kernels" / "runtime" / "init"
pytestmark = pytest.mark.skipif(not (shutil.which("make") and shutil.which("cc")), reason="building init needs make and cc")


@pytest.fixture(scope="module")
def init(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("init")
    for name in ("init.c", "Makefile"):
        shutil.copy(SOURCE / name, folder / name)
    subprocess.run(["make", "-s", "-C", str(folder)], check=True, timeout=60)
    return str(folder / "init")


@pytest.mark.parametrize(("argv", "status"), [
    (["true"], 0),
    (["sh", "-c", "exit 7"], 7),
    (["sh", "-c", "kill -9 $$"], 137),
    (["nonesuch"], 127),
    (["/nonesuch/program"], 127),
    (["/etc/passwd"], 126),
])
def test_ends_with_the_status_of_its_command(init: str, argv: list[str], status: int) -> None:
    assert subprocess.run([init, "--", *argv], check=False, timeout=30).returncode == status


def test_passes_signals_on_to_its_command(init: str) -> None:
    script = "trap 'exit 9' USR1; echo ready; while :; do sleep 0.05; done"
    with subprocess.Popen([init, "--", "sh", "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGUSR1)
        assert process.wait(timeout=30) == 9
