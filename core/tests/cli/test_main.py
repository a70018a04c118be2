"""Where ``bai`` begins: what commands there are, how arguments are read, and how it ends."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import backendai
import pytest
from backendai import cli
from backendai.cli import main as begin
from backendai.cli.main import COMMANDS, NAMES, main
from backendai.model.errors import KINDS, Failure

if TYPE_CHECKING:
    from conftest import Bai

FOLDER = Path(str(cli.__file__)).parent
BAI = str(Path(sys.executable).with_name("bai"))


def test_the_overview_lists_every_command_there_is(bai: Bai) -> None:
    made = {path.stem for path in FOLDER.glob("*.py") if "\ndef run(options: Namespace)" in path.read_text()}
    assert set(NAMES) == made
    shown = bai("--help").out
    for group in COMMANDS.values():
        for name, text in group.items():
            assert f"  {name:12}{text}\n" in shown
    assert bai("-h").out == bai("help").out == shown
    assert max(map(len, shown.splitlines())) <= 80


def test_no_command_is_help_and_a_mistake(bai: Bai) -> None:
    assert bai(code=2).out == bai("--help").out


@pytest.mark.parametrize("name", NAMES)
def test_every_command_has_help_that_says_what_it_does(bai: Bai, name: str) -> None:
    said = bai(name, "--help").out
    about = next(group[name] for group in COMMANDS.values() if name in group)
    assert f"usage: bai {name}" in said
    assert " ".join(about.split()) in " ".join(said.split())
    assert "--json" in said
    assert bai("help", name).out == said


def test_every_option_and_every_argument_is_explained() -> None:
    from argparse import ArgumentParser, _SubParsersAction

    def look(parser: ArgumentParser) -> list[str]:
        bare = []
        for action in parser._actions:
            if isinstance(action, _SubParsersAction):
                helped = {choice.dest for choice in action._choices_actions if choice.help}
                bare += [f"{parser.prog} {name}" for name in action.choices if name not in helped]
                for inner in action.choices.values():
                    bare += look(inner)
            elif not action.help and action.option_strings and not action.choices:
                bare.append(f"{parser.prog} {action.option_strings}")
        return bare

    found = []
    for name in NAMES:
        parser = ArgumentParser(prog=f"bai {name}")
        begin.prepare(parser, name, importlib.import_module(f"backendai.cli.{name}"))
        found += look(parser)
    assert found == ["bai user create ['--email']", "bai user set ['--email']"], "which need no word"


def test_the_version(bai: Bai) -> None:
    assert bai("--version").out == f"bai {backendai.__version__}\n"


@pytest.mark.parametrize(("typed", "meant"), [("staart", "start"), ("lgos", "logs"), ("images", "image"), ("users", "user")])
def test_an_unknown_command_is_told_what_is_near(bai: Bai, typed: str, meant: str) -> None:
    said = bai(typed, "x", code=2)
    assert (said.out, said.err) == ("", f"bai: There is no command {typed!r}; did you mean `bai {meant}`?\n")


def test_a_command_that_is_near_to_none(bai: Bai) -> None:
    assert bai("xyzzy", code=2).err == "bai: There is no command 'xyzzy'; see `bai --help`.\n"
    assert bai("--frobnicate", code=2).err.startswith("bai: There is no command '--frobnicate'")


def options_of(*words: str) -> Namespace:
    return begin.read(words[0], importlib.import_module(f"backendai.cli.{words[0]}"), list(words[1:]))


@pytest.mark.parametrize(("words", "command"), [
    (("run", "--", "ls", "-l"), ["ls", "-l"]),
    (("run", "ls"), ["ls"]),
    (("run", "-d", "echo", "a", "b"), ["echo", "a", "b"]),
    (("run", "--", "sh", "-c", "x", "--", "y"), ["sh", "-c", "x", "--", "y"]),
    (("run", "env", "--", "A=1", "sh"), ["env", "A=1", "sh"]),
    (("run", "--"), []),
    (("run",), []),
    (("run", "--", "--"), ["--"]),
    (("run", "--", "--json"), ["--json"]),
    (("run", "--", "--help"), ["--help"]),
    (("run", "--", "-i", "x"), ["-i", "x"]),
    (("run", "--", ""), [""]),
])
def test_what_stands_behind_the_dashes_is_the_command_s_own(words: tuple[str, ...], command: list[str]) -> None:
    options = options_of(*words)
    assert options.command == command
    assert options.json is False and options.image is None


def test_options_stand_before_the_dashes() -> None:
    options = options_of("exec", "-t", "lab", "--json", "-e", "A=1", "--", "sh", "-e")
    assert (options.session, options.tty, options.json, options.env, options.command) == ("lab", True, True, ["A=1"], ["sh", "-e"])


def test_a_command_that_takes_none_says_so(bai: Bai) -> None:
    assert "no command behind `--`" in bai("ps", "--", "ls", code=2).err.replace("It takes", "takes")


def test_an_option_of_the_command_without_dashes_is_explained(bai: Bai) -> None:
    said = bai("run", "ls", "-l", code=2).err
    assert "-l" in said and "behind `--`" in said and "bai run --help" in said and "Traceback" not in said
    assert "behind" not in bai("ps", "--frob", code=2).err


@pytest.mark.parametrize("words", [("token", "--json", "ls"), ("token", "ls", "--json"), ("ls", "--json")])
def test_json_may_stand_before_and_after_a_command_s_command(words: tuple[str, ...]) -> None:
    options = options_of("token" if words[0] == "token" else "config", *[word for word in words if word != "token"])
    assert options.json is True
    assert options_of("token", "ls").json is False


def test_json_may_stand_before_everything(bai: Bai) -> None:
    assert bai("--json", "config", "ls").json == {"items": []}
    assert bai("--json", code=2).err.startswith("bai: There is no command '--json'")


def test_options_are_not_abbreviated(bai: Bai) -> None:
    """Else a new option would change what an old script means."""
    assert "--na" in bai("run", "--na", "x", code=2).err


@pytest.mark.parametrize("code", KINDS)
def test_every_error_has_its_exit_status_and_its_sentence(bai: Bai, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    def fail(_: Namespace) -> int:
        raise Failure(code, "Do this, or that.")

    monkeypatch.setattr(importlib.import_module("backendai.cli.whoami"), "run", fail)
    said = bai("whoami", code=KINDS[code].exit)
    assert (said.out, said.err) == ("", "bai: Do this, or that.\n")
    said = bai("whoami", "--json", code=KINDS[code].exit)
    assert (said.out, json.loads(said.err)) == ("", Failure(code, "Do this, or that.").problem())


def test_an_error_in_the_arguments_is_json_too(bai: Bai) -> None:
    for words in (("ps", "--json", "--frob"), ("token", "--json"), ("xyzzy", "--json"), ("run", "--json", "-r", "what", "--", "x")):
        said = bai(*words, code=None)
        assert (said.out, json.loads(said.err)["status"] in (400, 422)) == ("", True), words


def test_json_behind_the_dashes_is_not_ours(bai: Bai) -> None:
    assert bai("run", "-r", "what", "--", "x", "--json", code=65).err.startswith("bai: ")


def test_a_message_cannot_drive_the_terminal(bai: Bai, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Namespace) -> int:
        raise Failure("internal", "\x1b]0;owned\x07\x1b[2Jred\r\u202eevil\nnext\u009b1m")

    monkeypatch.setattr(importlib.import_module("backendai.cli.whoami"), "run", fail)
    said = bai("whoami", code=70).err
    assert said == "bai: ?]0;owned??[2Jred ?evil next?1m\n"


def test_a_file_that_cannot_be_used_is_said(bai: Bai, home: Path) -> None:
    (home / ".config").write_text("a file where a folder should be")
    said = bai("config", "ls", code=2).err
    assert ".config" in said and said.startswith("bai: ")


def test_ctrl_c_ends_quietly(bai: Bai, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: Namespace) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib.import_module("backendai.cli.whoami"), "run", interrupt)
    said = bai("whoami", code=130)
    assert said.out + said.err == ""


def test_nobody_reads_the_output(home: Path) -> None:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    reader, writer = os.pipe()
    os.close(reader)
    try:
        for words in (["--help"], ["completion", "bash"], ["config", "path"]):
            done = subprocess.run([BAI, *words], check=False, stdout=writer, stderr=subprocess.PIPE, env=env)
            assert (done.returncode, done.stderr) == (141, b""), words
    finally:
        os.close(writer)


def test_a_signal_ends_a_command_that_waits(home: Path) -> None:
    """`bai login` waits for a token on its standard input."""
    process = subprocess.Popen([BAI, "login", "http://127.0.0.1:1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with process:
        until_reading(process.pid)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, b"", b"")


def until_reading(pid: int) -> None:
    """Wait until a process waits for its standard input."""
    import time

    while "pipe" not in (Path(f"/proc/{pid}/wchan").read_text() + Path(f"/proc/{pid}/stack").read_text()):
        time.sleep(0.02)


# --- commands of plugins ---

PLUGIN = """
from backendai.spec import hookimpl
from backendai.spec.cli_v10 import Command

class Toys:
    @hookimpl
    def commands(self):
        def arguments(parser):
            parser.add_argument("what", nargs="?")
        def run(options):
            print("played with", options.what, options.json, options.command)
            return 7
        return [Command("play", "Play with a toy.", arguments, run), Command("ps", "Take over.", arguments, run)]
"""
BROKEN = """
from backendai.spec import hookimpl

class Broken:
    @hookimpl
    def commands(self):
        raise RuntimeError("it fell apart")
"""


@pytest.fixture
def toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A distribution that offers commands, on the path."""
    site = tmp_path / "site"
    install(site, "bai_toys", PLUGIN, "toys", "Toys")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", str(site))
    return site


def install(site: Path, module: str, source: str, name: str, attribute: str) -> None:
    info = site / f"{module}-1.0.dist-info"
    info.mkdir(parents=True)
    (site / f"{module}.py").write_text(source)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[backendai_cli_v10]\n{name} = {module}:{attribute}\n")


def test_a_plugin_s_command_is_one(toys: Path, home: Path) -> None:
    def run(*words: str) -> Any:
        return subprocess.run([BAI, *words], check=False, capture_output=True, text=True)

    done = run("play", "chess", "--json")
    assert (done.returncode, done.stdout, done.stderr) == (7, "played with chess True []\n", "")
    done = run("play", "--help")
    assert done.returncode == 0 and "Play with a toy." in done.stdout
    assert "did you mean `bai play`?" in run("plya").stderr
    assert "played" not in run("ps").stdout, "a built-in name cannot be replaced"


def test_a_plugin_that_breaks_takes_no_command_with_it(toys: Path, home: Path) -> None:
    install(toys, "bai_broken", BROKEN, "broken", "Broken")
    done = subprocess.run([BAI, "play", "chess"], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (7, "played with chess False []\n")
    assert "it fell apart" in done.stderr and "Traceback" not in done.stderr
    done = subprocess.run([BAI, "config", "ls"], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), "and who does not ask for one does not hear of it"


def test_it_can_be_called_from_python() -> None:
    assert main(["--version"]) == 0
