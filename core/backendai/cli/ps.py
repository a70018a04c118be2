"""``bai ps``: sessions in a table."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from backendai.cli.asking import name_project
from backendai.cli.screen import age, connect, outcome, say, show_json, show_table, slots
from backendai.cli.when import brief
from backendai.client import calls
from backendai.client.sync import Client
from backendai.model.errors import Failure

MOST = 50
MOST_QUEUED = 1000  # of each group, in one answer


def arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("-a", "--all", action="store_true", help=f"ended ones, too: the newest {MOST}, or -n of them")
    parser.add_argument("-n", "--number", type=int, metavar="N", help="at most so many, newest first")
    parser.add_argument("-A", "--everyone", action="store_true", help="not only yours: all that you may see")
    parser.add_argument("--user", metavar="NAME", help="those of a user, as far as you may see them")
    name_project(parser, help="everyone's in a project of yours")
    parser.add_argument("--arrays", action="store_true", help="each session of an array in a line of its own")
    parser.add_argument("--eta", action="store_true", help="when those that wait will start")
    parser.add_argument("-q", "--quiet", action="store_true", help="ids only")


def run(options: Namespace) -> int:
    """Print the sessions."""
    most = options.number if options.number is not None else MOST if options.all else None
    if most is not None and most < 1:
        raise Failure("invalid-request", "-n must be at least 1.")
    with connect() as client:
        page = collect(client, options.all, most, project=options.project, user=options.user, everyone=options.everyone)
        starts = expected(client, page["items"]) if options.eta else None
    if options.json:
        return show_json(page if starts is None else {**page, "starts": starts})
    if options.quiet:
        for session in page["items"]:
            print(session["id"])
        return 0
    columns = [(head, key) for head, key in (("OWNER", "owner"), ("PROJECT", "project"), ("DOMAIN", "domain"))
               if len({session[key] for session in page["items"]}) > 1]  # what is the same for all need not be said
    heads = ["NAME", *(head for head, _ in columns), "ID", "TYPE", "STATE", "EXIT", "IMAGE", "AGENT", "SLOTS", "AGE",
             *(["STARTS"] if options.eta else []), "WHY"]
    show_table(heads, [_row(session, [key for _, key in columns], starts) for session in
                       (page["items"] if options.arrays else fold(page["items"]))])
    if page["next"]:
        say(f"The newest {len(page['items'])} are shown; -n N shows more.")
    return 0


def collect(client: Client, all: bool, most: int | None, **whose: Any) -> dict[str, Any]:
    """Return one page with so many sessions, or every one. whose: as the API takes it; yours when nothing is said."""
    items: list[dict[str, Any]] = []
    cursor = None
    while True:
        limit = calls.PAGE if most is None else min(calls.PAGE, most - len(items))
        page = client.raw(calls.list_sessions(all, None, cursor, limit, **whose))
        items += page["items"]
        cursor = page["next"]
        if cursor is None or (most is not None and len(items) >= most):
            return {"items": items, "next": cursor}


def fold(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put the sessions of an array that are in the same state together, as one: ``train-[0,1,5]`` or ``train-[3 of them]``."""
    rows: list[dict[str, Any]] = []
    places: dict[tuple[str, str], int] = {}
    members: dict[int, list[int]] = {}
    for session in items:
        array = session.get("array")
        if array is None:
            rows.append(session)
            continue
        at = places.setdefault((array["id"], session["state"]), len(rows))
        if at == len(rows):
            rows.append(session)
        members.setdefault(at, []).append(array["index"])
    for at, indices in members.items():
        if len(indices) > 1:
            some = ",".join(map(str, sorted(indices))) if len(indices) <= 5 else f"{min(indices)}..{max(indices)}: {len(indices)}"
            one = rows[at]
            rows[at] = {**one, "id": one["array"]["id"], "name": f"{one['name'].rpartition('-')[0]}-[{some}]", "exit_code": None}
    return rows


def expected(client: Client, sessions: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the place in the queue and the expected start of those of *sessions* that wait, by id."""
    if not any(session["state"] == "PENDING" for session in sessions):
        return {}
    ids = {session["id"]: session.get("array") for session in sessions}
    found: dict[str, dict[str, Any]] = {}
    for queue in client.raw(calls.get_queue(limit=MOST_QUEUED))["items"]:
        for entry in queue["items"]:
            if entry["session"] in ids:
                found[entry["session"]] = {key: entry[key] for key in ("position", "earliest", "latest")}
                if (array := ids[entry["session"]]) is not None:  # where an array is one line, its first counts
                    found.setdefault(array["id"], found[entry["session"]])
    return found


def _row(session: dict[str, Any], more: list[str], starts: dict[str, dict[str, Any]] | None) -> list[str]:
    entry = (starts or {}).get(session["id"])
    eta = [] if starts is None else ["" if entry is None else brief(entry["earliest"], entry["latest"])]
    code = session["exit_code"]
    return [session["name"], *(session[key] for key in more), session["id"], session["type"], session["state"],
            "" if code is None else str(code), session["image"] or "", session["agent"] or "", slots(session["slots"]),
            age(session["created_at"]), *eta, outcome(session)]
