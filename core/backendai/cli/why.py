"""``bai why``: why a session waits, what would let it start, and when it will; of others, why they are where they are."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import Any

from backendai.cli.screen import clock, connect, names_sessions, plain, show_json, show_table
from backendai.cli.when import interval
from backendai.client import calls


def arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    names_sessions(parser)
    parser.add_argument("--replay", action="store_true", help="make the decision that placed it again, and compare")


def run(options: Namespace) -> int:
    """Explain the session."""
    with connect() as client:
        why = client.raw(calls.why_session(options.session, options.replay))
    return show_json(why) if options.json else show(why)


def show(why: dict[str, Any]) -> int:
    """Print an explanation; return the exit status of success."""
    write(why["text"])
    if why["hold"] and all(blocker["kind"] == "after" for blocker in why["blockers"]):  # the others say the same, and more
        write(why["hold"])
    section("What keeps it", [blocker["text"] for blocker in why["blockers"]])
    section("It would start now", [remedy["text"] for remedy in why["remedies"]])
    expected = why["expected"]
    if expected is not None:
        known = interval(expected["earliest"], expected["latest"])
        section("It will start" if why["session"] else "It would start", [*([known] if known else []), expected["text"]])
    if why["partial"]:
        write("\nThere was no time to try everything; ask again when less is going on.")
    if why["decision"] is not None:
        section("Who decided", decided(why["decision"]))
    if why["replay"] is not None:
        _show_replay(why["replay"])
    return 0


def write(text: str) -> None:
    """Print a line."""
    sys.stdout.write("\n".join(plain(line) for line in text.split("\n")) + "\n")


def section(title: str, lines: Sequence[str]) -> None:
    """Print lines below a title; nothing where there are none."""
    if lines:
        write("\n".join(["", title, *(f"  {line}" for line in lines)]))


def decided(decision: dict[str, Any]) -> list[str]:
    """Say who made a decision, and from what."""
    kept = "" if decision["kept"] else "; it is not kept any more"
    return [f"{decision['scheduler']} and {decision['selector']}",
            f"decision {decision['id']}, {clock(decision['at'])}, from the moment {decision['snapshot'][:16]}{kept}"]


def _show_replay(replay: dict[str, Any]) -> None:
    same = "It comes out as it did." if replay["same"] else "It does not come out as it did."
    section("Decided again", [same, *replay["differs"]])
    write("\nThe order in which sessions were tried")
    show_table(("", "SESSION", "AGENTS"), [
        (str(number), turn["name"] or turn["session"] or "(somebody else's)", ", ".join(dict.fromkeys(turn["agents"])) or "found no room")
        for number, turn in enumerate(replay["turns"], 1)])
    for number, choice in enumerate(replay["choices"], 1):
        write(f"\nHow the agents were ranked{f' for container {number}' if len(replay['choices']) > 1 else ''}")
        show_table(("RANK", "AGENT", "SCORE"), [(str(one["rank"]), one["agent"], f"{one['score']:.6g}") for one in choice])
    if not replay["choices"]:
        write("\nNo other agent had room, so the selector was not asked.")
