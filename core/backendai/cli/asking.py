"""The options by which a session is asked for."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from backendai.cli.screen import names_at
from backendai.cli.wanting import add_wants, wants
from backendai.client.calls import NewSession
from backendai.model.errors import Failure
from backendai.model.session import Mount, Network, SessionType
from backendai.model.units import parse_seconds


def add_options(parser: ArgumentParser) -> None:
    """Add what ``run`` and ``start`` have in common."""
    add = parser.add_argument
    add("-i", "--image", help="NAME:TAG; the site's choice when left out")
    add("-r", "--resources", default="", metavar="SLOTS", help="such as cpu=1,mem=512m")
    add("-e", "--env", action="append", default=[], metavar="NAME=VALUE", help="a variable; NAME alone takes yours")
    add("--name", help="by which to call it; one is made up when left out")
    add("--timeout", "--time-limit", metavar="TIME", help="end it after running so long, such as 10m")
    add("-d", "--detach", action="store_true", help="do not wait; print its id")
    add("-v", "--mount", action="append", default=[], metavar="SOURCE:TARGET[:ro]", help="a folder of the node, where its agent allows it")
    add("-w", "--workdir", metavar="PATH", help="where to begin; /home/work when left out")
    add("--network", choices=[network.value for network in Network], help="private: itself only; outward: the outside, too")
    add("--priority", type=int, metavar="0-100", help="higher goes first")
    add("--grace", metavar="TIME", help="from SIGTERM to SIGKILL when it is stopped")
    name_project(parser)
    name_group(parser)
    add("--preset", metavar="NAME", help="a named bundle of slots; see `bai preset ls`")
    add("--reservation", metavar="NAME", help="run in this advance reservation")
    add("--tag", action="append", default=[], help="for you to find it by")
    add("--dry-run", action="store_true", help="say what would become of it, and ask for nothing")
    add_wants(parser)


def name_group(parser: ArgumentParser) -> None:
    """Add the option that names a resource group; the shell completes it."""
    action = parser.add_argument("--group", metavar="NAME", help="the resource group; see `bai group ls`")
    action.completer = complete_groups  # type: ignore[attr-defined]  # argcomplete looks for it


def name_project(parser: ArgumentParser, help: str = "where it belongs; your own when left out, see `bai project ls`") -> None:
    """Add the option that names a project; the shell completes it."""
    action = parser.add_argument("--project", metavar="NAME", help=help)
    action.completer = complete_projects  # type: ignore[attr-defined]  # argcomplete looks for it


def complete_projects(**_: object) -> list[str]:
    """Return the names that the shell may complete a project to."""
    return names_at("/v1/projects")


def complete_groups(**_: object) -> list[str]:
    """Return the names that the shell may complete a resource group to."""
    return names_at("/v1/groups")


def new_session(options: Namespace, type: SessionType, command: Sequence[str] = ()) -> NewSession:
    """Return what the options ask for; raise ``Failure`` when one cannot be read."""
    return NewSession(
        type, options.name, options.image, tuple(command), dict(map(read_variable, options.env)), read_slots(options.resources),
        options.priority, read_time("--timeout", options.timeout), read_time("--grace", options.grace),
        options.network and Network(options.network), tuple(map(_mount, options.mount)), options.workdir, tuple(options.tag),
        project=options.project, group=options.group, preset=options.preset, reservation=options.reservation,
        **wants(options))


def read_slots(text: str) -> dict[str, str]:
    """Read ``cpu=1,mem=512m``; the amounts are the server's to judge."""
    slots = {}
    for part in filter(None, text.split(",")):
        name, _, amount = (word.strip() for word in part.partition("="))
        if not name or not amount:
            raise Failure("bad-slots", f"-r {text}: {part!r} is not NAME=AMOUNT; write -r cpu=1,mem=512m.")
        slots[name] = amount
    return slots


def read_time(option: str, text: str | None) -> float | None:
    """Read a duration such as ``10m``."""
    if text is None:
        return None
    try:
        return parse_seconds(text)
    except ValueError as error:
        raise Failure("invalid-request", f"{option}: {error}.") from None


def read_variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals and name not in os.environ:
        raise Failure("invalid-request", f"-e {name}: you have no such variable; write -e {name}=VALUE.")
    return name, value if equals else os.environ[name]


def _mount(text: str) -> Mount:
    source, _, rest = text.partition(":")
    target, _, mode = rest.partition(":")
    if not source or not target or mode not in ("", "ro", "rw"):
        raise Failure("bad-mount", f"-v {text}: write SOURCE:TARGET, or SOURCE:TARGET:ro.")
    return Mount(source, target, mode == "ro")
