"""The options that say when, where and with whom a session runs, as the API takes them."""

from __future__ import annotations

from argparse import ArgumentParser
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from backendai.cli.wanting import add_wants, read_moment, wants
from backendai.model.errors import Failure


def asked(*words: str) -> dict[str, Any]:
    parser = ArgumentParser()
    add_wants(parser)
    return {name: value for name, value in wants(parser.parse_args(words)).items() if value not in (None, [], {})}


@pytest.mark.parametrize(("words", "wanted"), [
    ((), {}),
    (("--after", "first", "--after", "a/b:afterany"), {"after": [{"session": "first"}, {"session": "a/b", "kind": "afterany"}]}),
    (("--preemptible",), {"evicted": "requeue"}),
    (("--preemptible", "end"), {"evicted": "end"}),
    (("--retry", "3", "--on-exit", "75", "--on-exit", "76", "--backoff", "1m"),
     {"retry": {"count": 3, "exit_codes": [75, 76], "backoff_s": 60.0}}),
    (("--array", "0-9%2"), {"array": "0-9%2"}),
    (("--cluster", "main,sub:3"), {"cluster": [{"role": "main", "count": 1}, {"role": "sub", "count": 3}]}),
    (("--cluster", "main:1,ps:2", "--role-resources", "ps:cpu=2", "--role-image", "ps:x:1", "--role-command", "ps:serve 'a b'"),
     {"cluster": [{"role": "main", "count": 1},
                  {"role": "ps", "count": 2, "slots": {"cpu": "2"}, "image": "x:1", "command": ["serve", "a b"]}]}),
    (("--one-agent",), {"wishes": {"one_agent": True}}),
    (("--on", "a", "--not-on", "b", "--label", "disk=ssd", "--spread", "--zone", "same", "--prefer"),
     {"wishes": {"agents": ["a"], "avoid": ["b"], "labels": {"disk": "ssd"}, "arrange": "spread", "zone": "same", "strict": False}}),
    (("--prefer",), {}),
])
def test_options_become_what_the_api_takes(words: tuple[str, ...], wanted: dict[str, Any]) -> None:
    assert asked(*words) == wanted


@pytest.mark.parametrize(("words", "says"), [
    (("--after", "a:sometimes"), "afternotok"), (("--on-exit", "3"), "--retry"), (("--backoff", "3s"), "--retry"),
    (("--label", "disk"), "NAME=VALUE"), (("--cluster", "main:x"), "main:1,sub:3"), (("--role-image", "ps:x"), "a role of --cluster"),
    (("--at", "tomorrow"), "+2h"), (("--retry", "1", "--backoff", "soon"), "--backoff"), (("--bootstrap", "/nonesuch"), "No such file"),
])
def test_what_cannot_be_read_says_what_to_write(words: tuple[str, ...], says: str) -> None:
    with pytest.raises(Failure, match=says.replace("+", r"\+")):
        asked(*words)


def test_a_script_is_sent_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "setup.sh").write_text("echo hello\n")
    assert asked("--bootstrap", str(tmp_path / "setup.sh")) == {"bootstrap": "echo hello\n"}


def test_times_are_of_this_machine_and_lie_ahead() -> None:
    now = datetime(2026, 11, 26, 12, 0).astimezone().timestamp()
    assert read_moment("+2h", now) == now + 7200.0
    assert read_moment("13:30", now) == now + 5400.0
    assert read_moment("03:00", now) == now + 15 * 3600.0, "tomorrow's"
    assert read_moment("2026-11-26T12:00", now) == now
