"""Completion: what the shells are given, and that bash really completes with it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Bai

BIN = Path(sys.executable).parent
ASK = """
{script}
COMP_LINE="$1" COMP_POINT=${{#1}} COMP_TYPE=9
read -ra COMP_WORDS <<<"$1"
[[ $1 == *" " ]] && COMP_WORDS+=("")
COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_python_argcomplete bai "${{COMP_WORDS[COMP_CWORD]}}" "${{COMP_WORDS[COMP_CWORD-1]}}"
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
Complete = Callable[[str], set[str]]


@pytest.fixture
def complete(bai: Bai, monkeypatch: pytest.MonkeyPatch) -> Complete:
    """What bash offers behind a line, with the script that ``bai completion bash`` prints."""
    monkeypatch.setenv("PATH", f"{BIN}:{os.environ['PATH']}")
    script = bai("completion", "bash").out

    def ask(line: str) -> set[str]:
        done = subprocess.run(["bash", "--norc", "-c", ASK.format(script=script), "bash", line], check=True, capture_output=True, text=True)
        assert done.stderr == ""
        return {word.strip() for word in done.stdout.splitlines() if word.strip()}

    return ask


@pytest.mark.parametrize(("line", "offered", "not_offered"), [
    ("bai ", {"run", "ps", "plugin", "completion"}, {"asking", "screen"}),
    ("bai st", {"start", "stats", "stop"}, {"ps"}),
    ("bai run --ti", {"--timeout"}, {"--tag"}),
    ("bai run --network ", {"private", "outward"}, set()),
    ("bai token ", {"create", "ls", "rm"}, {"run"}),
    ("bai user create x --role ", {"user", "domain-admin", "superadmin"}, set()),
    ("bai project ", {"ls", "create", "show", "set", "rm", "members", "add", "remove"}, {"run"}),
    ("bai project add x y --role ", {"admin", "member", "viewer"}, {"user"}),
    ("bai domain ", {"ls", "create", "show", "set", "rm"}, {"add"}),
    ("bai serve manager --sch", {"--scheduler"}, set()),
    ("bai group ", {"ls", "create", "set", "rm", "show"}, set()),
    ("bai agent dr", {"drain"}, {"cordon"}),
    ("bai quota set user:x cpu=1 --g", {"--group"}, set()),
    ("bai reservation create x --f", {"--for", "--from"}, {"--until"}),
    ("bai group set default --preempt ", {"yes", "no"}, set()),
])
def test_bash_completes(complete: Complete, line: str, offered: set[str], not_offered: set[str]) -> None:
    found = complete(line)
    assert offered <= found and not not_offered & found


def test_the_names_of_sessions_are_completed(here: Bai, lab: str, complete: Complete) -> None:
    for line in ("bai exec lab-", "bai stop lab-", "bai logs -f lab-", "bai stats lab-"):
        assert lab in complete(line), line


def test_the_names_of_domains_and_projects_are_completed(here: Bai, complete: Complete) -> None:
    for line in ("bai domain show ", "bai user ls --domain ", "bai project show ", "bai run --project ", "bai ps --project "):
        assert "default" in complete(line), line
    assert {"read", "admin"} <= complete("bai token create x --scope ")


def test_the_names_of_groups_agents_and_presets_are_completed(here: Bai, complete: Complete) -> None:
    here("preset", "create", "completable", "-r", "cpu=0.01,mem=1m")
    [agent] = here("agent", "ls", "--json").json["items"]
    for line, name in (("bai group show def", "default"), ("bai run --group def", "default"), ("bai preset rm compl", "completable"),
                       (f"bai agent drain {agent['name'][:2]}", agent["name"])):
        assert name in complete(line), line
    here("preset", "rm", "completable")


def test_without_a_platform_no_name_is_offered_and_nothing_said(complete: Complete) -> None:
    assert complete("bai logs x") == set()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_takes_its_script(bai: Bai, tmp_path: Path, shell: str) -> None:
    script = bai("completion", shell).out
    assert "bai" in script and "_ARGCOMPLETE" in script
    (tmp_path / "script").write_text(script)
    if (program := shutil.which(shell)) is not None:  # bash always is; the others where somebody uses them
        done = subprocess.run([program, "-n", str(tmp_path / "script")], check=False, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")


def test_a_shell_that_is_not_known(bai: Bai) -> None:
    assert "bash" in bai("completion", "tcsh", code=2).err
    assert "_bai" in bai("completion", "--help").out
