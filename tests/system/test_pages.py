"""What README.md, docs/cli.md and docs/sdk.md show works as it is written: every line, in order, against a platform on the sandbox.

A line that cannot work as it stands is named below, with the reason and with what it does instead.
"""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.parts.image import ROOT
from tests.parts.platform import BAI, FINAL, Platform

WITHIN_S = 60.0
# What ends with another status than 0, and why.
ODD = {
    "bai run -i python:3.12-slim": (70, "the sandbox has no image but the node itself; it says so"),
    "bai logs -f --tail 20 lab": (130, "it goes on until the session has ended, and is interrupted here"),
}
SERVED = "bai up"  # the platform of the test is that already


def blocks(page: str, language: str) -> list[str]:
    """Return the fenced blocks of a page."""
    text = (ROOT / page).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```\s*$", text, re.MULTILINE | re.DOTALL)


def lines(page: str) -> list[str]:
    """Return the commands of a page's console blocks, in order, without their comments and without ``make``."""
    found = [line[2:] for block in blocks(page, "console") for line in block.splitlines() if line.startswith("$ ")]
    return [re.sub(r"^\S*/bai ", "bai ", re.sub(r"\s+# .*", "", line)) for line in found]


@pytest.fixture(scope="module")
def box() -> Iterator[Platform]:
    """A platform on the sandbox whose user has the files that the pages speak of."""
    made = Platform("sandbox")
    try:
        made.start()
        work = made.folder / "work"
        work.mkdir()
        (work / "data.csv").write_text("a,b\n1,2\n")
        home = made.folder / "home"
        (home / ".zfunc").mkdir()
        (home / ".config/fish/completions").mkdir(parents=True)
        yield made
    finally:
        left = made.remove()
    assert left == []


def shell(box: Platform, line: str) -> int:
    """Run a line as a user would, in a folder of theirs; return its exit status. One that follows is interrupted after a while."""
    env = {**box.env, "PATH": f"{Path(BAI).parent}:{os.environ['PATH']}"}
    argv = ["bash", "-c", f"exec {line}" if " -f " in line and "rm" not in line else line]
    if " -it " in line:
        return on_terminal(argv, box.folder / "work", env)
    process = subprocess.Popen(argv, cwd=box.folder / "work", env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if argv[2].startswith("exec "):
        time.sleep(2)
        process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=WITHIN_S)
    print(f"$ {line}\n{out}-> {process.returncode}")  # noqa: T201 - what to read when it fails
    assert "Traceback" not in out
    return process.returncode


def on_terminal(argv: list[str], folder: Path, env: dict[str, str]) -> int:
    """Run a shell on a terminal, and leave it as a user does."""
    master, slave = pty.openpty()
    with subprocess.Popen(argv, cwd=folder, env=env, stdin=slave, stdout=slave, stderr=slave, start_new_session=True) as process:
        os.close(slave)
        os.write(master, b"exit\n")
        code = process.wait(WITHIN_S)
    os.close(master)
    return code


def make_ready(box: Platform, line: str) -> None:
    """Make what a line needs and an earlier one has ended: the pages show several ways to do a thing."""
    if line.startswith("bai start"):
        if box.bai("info", "lab", code=None).code == 0:
            box.bai("rm", "-f", "lab")
        return
    if re.search(r"\blab\b", line):
        known = box.bai("info", "lab", "--json", code=None)
        if known.code or ('"RUNNING"' not in known.text and not line.startswith("bai rm lab")):
            box.bai("start", "--name", "lab", "-r", "cpu=0.1,mem=64m")
        if line == "bai rm lab":
            box.bai("stop", "lab")
    if line == "bai cp lab:results ./results":
        box.bai("exec", "lab", "--", "mkdir", "-p", "results")
    if line.endswith(" train") and box.bai("info", "train", code=None).code:
        box.detach("true", "--name", "train")


@pytest.mark.parametrize("page", ["README.md", "docs/cli.md"])
def test_every_line_works_in_order(box: Platform, page: str) -> None:
    shown = [line for line in lines(page) if line.startswith("bai ") or "| bai " in line]
    assert shown[0] == SERVED and len(shown) > 5
    for line in shown[1:]:
        make_ready(box, line)
        wanted = next((code for start, (code, _) in ODD.items() if line.startswith(start)), 0)
        assert shell(box, line) == wanted, line
    assert (box.folder / "work/results").is_dir() or page == "README.md"
    for session in box.sessions():
        if session["state"] not in FINAL:
            box.bai("rm", "-f", session["id"])


def test_every_odd_line_is_still_there() -> None:
    shown = [*lines("README.md"), *lines("docs/cli.md")]
    assert [start for start in ODD if not any(line.startswith(start) for line in shown)] == []


def test_the_readme_s_promise_on_the_way(box: Platform) -> None:
    """The first line of output that a newcomer sees is what the README says."""
    line = next(line for line in lines("README.md") if "print(" in line)
    env = {**box.env, "PATH": f"{Path(BAI).parent}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", line], check=True, cwd=box.folder / "work", env=env, capture_output=True, text=True,
                          timeout=WITHIN_S)
    assert (done.stdout, done.stderr) == ("hello\n", "")


@pytest.mark.parametrize("number", range(len(blocks("docs/sdk.md", "python"))))
def test_every_block_of_the_sdk_s_page_runs(box: Platform, number: int, tmp_path: Path) -> None:
    block = blocks("docs/sdk.md", "python")[number]
    done = subprocess.run([sys.executable, "-c", block], check=False, cwd=tmp_path, env=box.env, capture_output=True, text=True,
                          timeout=WITHIN_S)
    assert (done.returncode, done.stderr) == (0, ""), block
    if "print(" in block:
        assert done.stdout


def test_the_tables_name_what_there_is() -> None:
    """The methods in docs/sdk.md are methods, and no method of a client is left out."""
    from backendai.client import AsyncClient, Client

    table = (ROOT / "docs/sdk.md").read_text().partition("## Methods")[2].partition("```python")[0]
    named = set(re.findall(r"(?<!\w)`?(?:Async)?(?:Client\.)?([a-z_]+)\(", table))
    public = {name for kind in (Client, AsyncClient) for name in vars(kind) if not name.startswith("_")}
    assert public - named == {"close", "raw", "get", "raw_events"}, "which are for those who look closely"
    assert named <= public | {"calls"}
