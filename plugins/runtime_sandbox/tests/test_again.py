"""The same tests once more: as a user without any rights, and without a C compiler."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

pytestmark = pytest.mark.system
HERE = Path(__file__).parent
FIRST = ("test_life.py", "test_streams.py", "test_walls.py", "test_networks.py", "test_images.py")
SECOND = FIRST[1:4]  # what tells the shim in Python from the native one


@pytest.mark.timeout(600)
@pytest.mark.skipif(os.geteuid() != 0 or "SANDBOX_SHIM" in os.environ, reason="needs root to become others, and only once")
@pytest.mark.parametrize(("uid", "shim", "files"), [("12345", "native", FIRST), ("12345", "python", SECOND), ("0", "python", SECOND)],
                         ids=["user-native", "user-python", "root-python"])
def test_everything_works(uid: str, shim: str, files: Sequence[str]) -> None:
    home = Path(f"/tmp/sandbox-home-{os.getpid()}")
    home.mkdir()
    os.chown(home, int(uid), int(uid))
    setpriv = shutil.which("setpriv")
    assert setpriv, "util-linux has setpriv"
    try:
        done = subprocess.run(
            [setpriv, "--reuid", uid, "--regid", uid, "--clear-groups", sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider",
             "--basetemp", str(home / "tmp"), *(str(HERE / name) for name in files)],
            env={**os.environ, "HOME": str(home), "SANDBOX_SHIM": shim}, cwd=HERE.parents[2], capture_output=True, text=True, timeout=540)
    finally:
        shutil.rmtree(home)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
