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


@pytest.mark.parametrize(("argv", "status", "said"), [
    (["true"], 0, ""),
    (["sh", "-c", "exit 7"], 7, ""),
    (["sh", "-c", "kill -9 $$"], 137, ""),
    (["nonesuch"], 127, "nonesuch: there is no such program\n"),
    ([""], 127, ": there is no such program\n"),
    (["/nonesuch/program"], 127, "/nonesuch/program: there is no such program\n"),
    (["/etc/passwd"], 126, "/etc/passwd: cannot be run: it is no program, or this user may not run it\n"),
    (["/usr"], 126, "/usr: cannot be run: it is no program, or this user may not run it\n"),
])
def test_ends_with_the_status_of_its_command(init: str, argv: list[str], status: int, said: str) -> None:
    done = subprocess.run([init, "--", *argv], check=False, timeout=30, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (status, said)


@pytest.mark.parametrize(("first_line", "said"), [
    ("echo no first line", "it is no program of this machine, and has no #! line"),
    ("#!/nonesuch/interpreter", "the interpreter or loader that it names is not there"),
])
def test_says_what_is_wrong_with_a_file_that_is_no_program(init: str, tmp_path: Path, first_line: str, said: str) -> None:
    program = tmp_path / "program"
    program.write_text(f"{first_line}\n")
    program.chmod(0o755)
    done = subprocess.run([init, "--", str(program)], check=False, timeout=30, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (126, f"{program}: cannot be run: {said}\n")


def test_passes_signals_on_to_its_command(init: str) -> None:
    script = "trap 'exit 9' USR1; echo ready; while :; do sleep 0.05; done"
    with subprocess.Popen([init, "--", "sh", "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGUSR1)
        assert process.wait(timeout=30) == 9
