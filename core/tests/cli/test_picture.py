"""What `bai top` draws: everything on one screen, whatever its size."""

from __future__ import annotations

import re
from random import Random
from typing import Any

import pytest
from backendai.cli.picture import BOLD, GREEN, RED, RESET, WIDTH, YELLOW, cut, draw, share
from backendai.cli.when import at, brief, interval

NOW = 1_800_000_000.0


def agent(name: str, cpu: float = 0, **more: Any) -> dict[str, Any]:
    return {"name": name, "group": "default", "connected": True, "healthy": True, "why": "", "kernels": 1, "cordoned": False,
            "draining": False, "capacity": {"cpu": 4, "mem": 8 << 30}, "used": {"cpu": cpu}, **more}


def busy(name: str, cpu_s: float | None = None, at: float = NOW, **more: Any) -> dict[str, Any]:
    usage = None if cpu_s is None else {"at": at, "cpu_s": cpu_s, "memory": 1 << 20}
    return {"session": f"id-{name}", "name": name, "owner": "ada", "state": "RUNNING", "agents": ["a"], "slots": {"cpu": 2, "mem": 1 << 30},
            "since": NOW - 90, "usage": usage, **more}


def waits(name: str, position: int | None = 1, **more: Any) -> dict[str, Any]:
    return {"position": position, "name": name, "owner": "ada", "since": NOW - 5, "earliest": None, "latest": None, "hold": "It waits.",
            **more}


def overview(**more: Any) -> dict[str, Any]:
    group = {"name": "default", "scheduler": "fifo", "agents": 2, "well": 1, "running": 1, "waiting": 1, "capacity": {"cpu": 8},
             "used": {"cpu": 4}}
    return {"at": NOW, "groups": [group], "agents": [agent("a", 4), agent("b", cordoned=True)], "busy": [busy("lab", 7.0)], "hidden": 0,
            "queues": [{"group": "default", "hidden": 2, "items": [waits("next"), waits("later", None)]}], **more}


def test_everything_is_in_the_picture() -> None:
    text = "\n".join(draw(overview()))
    for said in ("agents 1/2   running 1   waiting 1", "cpu [|||||     ] 4/8", "cordoned", "cpu [||||||||||] 4/4", "lab", "1m30s",
                 "WAITS IN default", "next", "(2 not yours to see)"):
        assert said in text
    assert re.search(r"^-  later", text, re.MULTILINE) and "\x1b" not in text


def test_cores_are_the_rate_between_two_pictures() -> None:
    before = overview(at=NOW - 2, busy=[busy("lab", 4.0, NOW - 2)])
    assert "1.50" in "\n".join(draw(overview(), before)) and "1.50" not in "\n".join(draw(overview()))
    for odd in (overview(busy=[busy("lab")]), overview(busy=[busy("lab", 4.0)])):
        draw(overview(), odd)


def test_bars_have_colours_by_how_full_they_are_and_none_without_colour() -> None:
    text = "\n".join(draw(overview(), colours=True))
    assert f"[{RED}{'|' * WIDTH}{RESET}]" in text and f"[{GREEN}|||||{RESET}" in text
    text = "\n".join(draw(overview(agents=[agent("a", 3)]), colours=True))
    assert f"[{YELLOW}||||||||{RESET}" in text and text.startswith(BOLD)


@pytest.mark.parametrize("seed", range(30))
def test_it_never_exceeds_the_terminal(seed: int) -> None:
    random = Random(seed)
    many = overview(agents=[agent(f"agent{i}", random.random() * 4) for i in range(random.randrange(60))],
                    busy=[busy(f"s{i}", 1.0) for i in range(random.randrange(60))],
                    queues=[{"group": "g", "hidden": 2, "items": [waits(f"w{i}", i + 1) for i in range(random.randrange(60))]}])
    rows, columns = random.randrange(1, 60), random.randrange(1, 200)
    lines = draw(many, None, rows, columns, colours=bool(seed % 2))
    assert len(lines) <= rows
    assert all(len(re.sub(r"\x1b\[\d+m", "", line)) <= columns for line in lines)
    assert all(line.count("\x1b") == 0 or RESET in line[line.index("\x1b"):] for line in lines), "no colour leaks"


def test_what_does_not_fit_is_counted() -> None:
    lines = draw(overview(busy=[busy(f"s{i}") for i in range(40)]), rows=24, columns=100)
    assert any(re.fullmatch(r"\.\.\. \d+ more", line) for line in lines)


def test_agents_that_were_left_out_are_counted() -> None:
    assert "(1 more)" in draw(overview(agents=[agent("a")])) and "more" not in "\n".join(draw(overview()))


def test_lines_are_shared_fairly() -> None:
    assert share([2, 50, 50], 20) == [2, 9, 9]
    assert share([1, 1], 50) == [1, 1] and share([], 5) == []
    assert share([9, 9, 9], 7) == [3, 2, 2]


def test_cutting_keeps_colours_whole() -> None:
    assert cut(f"{RED}abc{RESET}def", 2) == f"{RED}ab{RESET}"
    assert cut("abc", 3) == "abc"


def test_what_others_are_called_cannot_move_the_cursor() -> None:
    text = "\n".join(draw(overview(queues=[{"group": "g", "hidden": 0, "items": [waits("x\x1b[2J\n")]}])))
    assert "\x1b" not in text


def test_moments_to_come_in_words() -> None:
    there = at(NOW + 7200, NOW)
    assert interval(NOW, NOW, NOW) == "now" == brief(NOW - 5, NOW, NOW)
    assert interval(None, None, NOW) == "" and brief(None, None, NOW) == "?"
    assert interval(None, NOW + 7200, NOW) == f"by {there}, in 2h or sooner" and brief(None, NOW + 7200, NOW) == f"by {there}"
    assert interval(NOW + 7200, None, NOW) == f"from {there} on, in 2h or later" and brief(NOW + 7200, None, NOW) == f"from {there}"
    assert interval(NOW + 60, NOW + 7200, NOW) == f"between {at(NOW + 60, NOW)} and {there}, in 1m to 2h"
    assert interval(NOW, NOW + 7200, NOW) == f"between now and {there}, within 2h"
    assert interval(NOW + 7200, NOW + 7200, NOW) == f"at about {there}, in 2h" and brief(NOW + 7200, NOW + 7200, NOW) == there
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d", at(NOW + 86400 * 2, NOW))
