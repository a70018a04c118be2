"""The options by which a session says when, where and with whom it is to run."""

from __future__ import annotations

import re
import shlex
import time
from argparse import ArgumentParser, Namespace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from backendai.model.errors import Failure
from backendai.model.session import After, Evicted, Zone
from backendai.model.units import parse_seconds

_KINDS = tuple(kind.value for kind in After)
_OF_ROLE = re.compile(r"([a-z][a-z-]*):(.+)", re.DOTALL)


def add_wants(parser: ArgumentParser) -> None:
    """Add what says when, where and with whom."""
    when = parser.add_argument_group("when")
    when.add_argument("--after", action="append", default=[], metavar="SESSION[:KIND]",
                      help=f"when that one has ended; KIND: {', '.join(_KINDS)}; {After.OK} when left out")
    when.add_argument("--at", metavar="TIME", help="not before; 2026-11-26T03:00, 03:00 (the next one), or +2h")
    when.add_argument("--preemptible", nargs="?", const=Evicted.REQUEUE.value, choices=[how.value for how in Evicted],
                      help="may make room for the more urgent, and then waits again (requeue) or has ended (end)")
    again = parser.add_argument_group("again (batch only)")
    again.add_argument("--retry", type=int, metavar="N", help="try it so many times more when it fails")
    again.add_argument("--on-exit", action="append", type=int, default=[], metavar="CODE", help="only with this exit code")
    again.add_argument("--backoff", metavar="TIME", help="wait so long before the first, 10s when left out; doubled each time")
    again.add_argument("--array", metavar="FROM-TO[%N]", help="so many such sessions, at most N of them at once")
    several = parser.add_argument_group("several containers")
    several.add_argument("--cluster", metavar="ROLE:N,...", help="such as main:1,sub:3; main1 is the session's own")
    several.add_argument("--one-agent", action="store_true", help="all of them on one agent")
    several.add_argument("--role-resources", action="append", default=[], metavar="ROLE:SLOTS", help="another -r for a role")
    several.add_argument("--role-image", action="append", default=[], metavar="ROLE:IMAGE", help="another -i for a role")
    several.add_argument("--role-command", action="append", default=[], metavar="ROLE:COMMAND", help="another command for a role")
    several.add_argument("--bootstrap", metavar="FILE", help="a shell script of yours that runs inside before the command")
    where = parser.add_argument_group("where")
    where.add_argument("--on", action="append", default=[], metavar="AGENT", help="on one of these")
    where.add_argument("--not-on", action="append", default=[], metavar="AGENT", help="on none of these")
    where.add_argument("--label", action="append", default=[], metavar="NAME=VALUE", help="where the agents' labels say so")
    stand = where.add_mutually_exclusive_group()
    stand.add_argument("--pack", action="store_const", dest="arrange", const="pack", help="on as few agents as can be")
    stand.add_argument("--spread", action="store_const", dest="arrange", const="spread", help="on as many")
    where.add_argument("--zone", choices=[zone.value for zone in Zone], help="in the same failure domain, or in different ones")
    where.add_argument("--prefer", action="store_true", help="go elsewhere rather than wait for a place like that")


def wants(options: Namespace) -> dict[str, Any]:
    """Return what these options ask for, as fields of ``NewSession``; raise ``Failure`` when one cannot be read."""
    wishes = {"agents": options.on, "avoid": options.not_on, "labels": dict(_pair("--label", text) for text in options.label),
              "arrange": options.arrange, "zone": options.zone, "one_agent": options.one_agent or None}
    wishes = {name: value for name, value in wishes.items() if value not in (None, [], {})}
    if wishes and options.prefer:
        wishes["strict"] = False
    retry = {"count": options.retry, "exit_codes": options.on_exit or None,
             "backoff_s": None if options.backoff is None else _seconds("--backoff", options.backoff)}
    if options.retry is None and (options.on_exit or options.backoff):
        raise Failure("invalid-request", "--on-exit and --backoff say how to --retry; write --retry N, too.")
    return {
        "cluster": _cluster(options), "wishes": wishes, "bootstrap": _script(options.bootstrap),
        "not_before": None if options.at is None else read_moment(options.at, time.time()),
        "after": [_after(text) for text in options.after], "retry": {name: value for name, value in retry.items() if value is not None},
        "evicted": options.preemptible, "array": options.array}


def read_moment(text: str, now: float) -> float:
    """Read a time of ``--at`` into seconds since the epoch; a clock time is the next one of this machine's."""
    if text.startswith("+"):
        return now + _seconds("--at", text[1:])
    try:
        if re.fullmatch(r"\d{1,2}:\d{2}", text):
            hour, minute = map(int, text.split(":"))
            here = datetime.fromtimestamp(now).astimezone()
            at = here.replace(hour=hour, minute=minute, second=0, microsecond=0)
            return (at if at > here else at + timedelta(days=1)).timestamp()
        return datetime.fromisoformat(text).astimezone().timestamp()
    except ValueError:
        raise Failure("invalid-request", f"--at {text}: write 2026-11-26T03:00, 03:00 or +2h.") from None


def _seconds(option: str, text: str) -> float:
    try:
        return parse_seconds(text)
    except ValueError as error:
        raise Failure("invalid-request", f"{option}: {error}.") from None


def _after(text: str) -> dict[str, str]:
    session, _, kind = text.rpartition(":")
    if kind in _KINDS:
        return {"session": session, "kind": kind}
    if ":" in text:
        raise Failure("invalid-request", f"--after {text}: write SESSION, or SESSION:KIND with {', '.join(_KINDS)}.")
    return {"session": text}


def _pair(option: str, text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name or not value:
        raise Failure("invalid-request", f"{option} {text}: write NAME=VALUE.")
    return name, value


def _script(file: str | None) -> str | None:
    if file is None:
        return None
    try:
        return Path(file).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise Failure("invalid-request", f"--bootstrap {file}: {getattr(error, 'strerror', None) or 'it is no text'}.") from None


def _cluster(options: Namespace) -> list[dict[str, Any]]:
    parts: dict[str, dict[str, Any]] = {}
    for word in filter(None, (options.cluster or "").split(",")):
        role, _, count = word.partition(":")
        if not (count or "1").isdecimal():
            raise Failure("invalid-request", f"--cluster {options.cluster}: {word!r} is not ROLE:N; write main:1,sub:3.")
        parts[role] = {"role": role, "count": int(count or 1)}
    from backendai.cli.asking import read_slots  # it imports us

    for option, texts, field, read in (("--role-resources", options.role_resources, "slots", read_slots),
                                       ("--role-image", options.role_image, "image", str),
                                       ("--role-command", options.role_command, "command", shlex.split)):
        for text in texts:
            found = _OF_ROLE.fullmatch(text)
            if found is None or found[1] not in parts:
                raise Failure("invalid-request", f"{option} {text}: write ROLE:..., with a role of --cluster.")
            parts[found[1]][field] = read(found[2])
    return list(parts.values())
