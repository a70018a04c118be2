"""``bai plugin``: list, check, write and diagnose plugins."""

from __future__ import annotations

import asyncio
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backendai.cli.screen import connect, plain, show_json, show_table
from backendai.model.errors import Failure

if TYPE_CHECKING:
    from backendai.plugin.host import Settings
    from backendai.testing.check import Report, Result

ILL = 1  # the exit status of a check or a diagnosis that found something


def arguments(parser: ArgumentParser) -> None:
    """Add the commands below this one."""
    commands = parser.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    ls = commands.add_parser("ls", help="list the plugins that are installed here, and whether each can be used")
    ls.add_argument("--server", action="store_true", help="those of the platform that you are logged in at: its manager and its agents")
    check = commands.add_parser("check", help="try the laws of its contract on a plugin, and grade it")
    check.add_argument("id", metavar="ID", help="such as scheduler_v10.fifo; `bai plugin ls` lists them")
    check.add_argument("-o", "--option", action="append", default=[], metavar="NAME=VALUE", help="one of its options; the value as JSON")
    check.add_argument("-i", "--image", default="", help="what a runtime is to run; its own choice when left out")
    new = commands.add_parser("new", help="write the package of a new plugin, tests included, here")
    new.add_argument("group", metavar="GROUP", help="what it decides: scheduler, agentselector, runtime, accelerator, hook, webapp, "
                                                    "monitor_stats, monitor_error or cli")
    new.add_argument("name", metavar="NAME", help="such as my-policy; the package is called backendai-NAME")
    doctor = commands.add_parser("doctor", help="say what is wrong with the plugins that are installed here, and how to mend it")
    for each in (ls, check, doctor):
        each.add_argument("--config", type=Path, metavar="FILE", help="a role's TOML file: what [plugins] says holds")


def run(options: Namespace) -> int:
    """List, check, write or diagnose plugins."""
    verbs: Mapping[str, Callable[[Namespace], int]] = {"ls": list_, "check": check, "new": new, "doctor": doctor}
    return verbs[options.verb](options)


def list_(options: Namespace) -> int:
    """Print a row for each plugin."""
    if options.server:
        with connect() as client:
            page = client.get("/v1/plugins")
        if options.json:
            return show_json(page)
        show_table(("ID", "WHERE", "DIST", "VERSION", "STATE", "WHY"),
                   [(p["id"], p["where"], p["dist"], p["version"], p["state"], p["why"]) for p in page["items"]])
        return 0
    from backendai.testing.doctor import list_plugins

    settings = _settings(options)
    with silent():
        rows = asyncio.run(list_plugins(settings))
    if options.json:
        return show_json([{"id": r.id, "dist": r.dist, "version": r.version, "state": r.state.value, "why": r.why} for r in rows])
    show_table(("ID", "DIST", "VERSION", "STATE", "WHY"), [(r.id, r.dist, r.version, r.state.value, r.why) for r in rows])
    return 0


def check(options: Namespace) -> int:
    """Try the laws, print each as it is tried, and the grade; succeed when every required law holds."""
    from backendai.testing.check import Report, check_each, kit_of

    spec, dot, _ = options.id.partition(".")
    if not dot:
        raise Failure("invalid-request", f"{options.id!r} is no plugin's id; write one such as scheduler_v10.fifo (`bai plugin ls`).")
    kit = kit_of(spec)
    _is_installed(spec, options.id)
    given = {**_settings(options).options.get(options.id, {}), **_options(options.option)}
    more = {"image": options.image} if options.image else {}
    results: list[Result] = []
    with silent():
        for result in check_each(kit, options.id, given, **more):
            if not options.json:
                _show(result, results[-1].why if results else "")
            results.append(result)
    report = Report(options.id, tuple(results))
    if options.json:
        show_json(_plain(report))
    else:
        print(f"\n{report.plugin}: grade {report.grade}. {_verdict(report)}")
    return 0 if report.good else ILL


def new(options: Namespace) -> int:
    """Write a package and say what to do next."""
    from backendai.testing.scaffold import check_group, write_plugin

    folder = write_plugin(options.group, options.name, Path.cwd())
    if options.json:
        return show_json({"id": f"{check_group(options.group)}.{options.name}", "folder": str(folder)})
    print(f"Written: {folder.name}/\n\nGo on with:\n  cd {folder.name}\n  pip install -e '.[test]'\n  python -m pytest\n"
          f"  bai plugin check {check_group(options.group)}.{options.name}")
    return 0


def doctor(options: Namespace) -> int:
    """Print what is wrong and the mend; succeed when nothing is that matters."""
    from backendai.testing.doctor import look

    settings = _settings(options)
    with silent():
        findings = asyncio.run(look(settings))
    if options.json:
        show_json([{"plugin": f.plugin, "what": f.what, "mend": f.mend, "grave": f.grave} for f in findings])
    else:
        for finding in findings:
            print(plain(f"{finding.plugin}: {finding.what}"))
            print(plain(f"    {finding.mend}"))
        if not findings:
            print("All plugins are up.")
    return ILL if any(finding.grave for finding in findings) else 0


def _is_installed(spec: str, id: str) -> None:
    from backendai.plugin.discovery import find
    from backendai.testing.check import kit_of

    ids = [one.id for one in find(kit_of(spec).spec)]
    if id not in ids:
        raise Failure("not-found", f"There is no plugin {id} here; of its contract there are: {', '.join(ids) or 'none'}.")


def _settings(options: Namespace) -> Settings:
    """Return what a role's file says of plugins, if one is named."""
    from backendai.cli import setting

    return setting.plugins(setting.read_file(options.config))


def _options(words: list[str]) -> dict[str, Any]:
    """Read NAME=VALUE; a value that is not JSON is taken as text."""
    import json

    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not name or not equals:
            raise Failure("invalid-request", f"-o {word}: write -o NAME=VALUE, such as -o overtake=true.")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def _show(result: Result, said: str) -> None:
    """Print one law. said: the reason that was printed last, which need not be printed again."""
    mark = {"pass": "pass", "fail": "FAIL", "skip": "skip"}[result.outcome]
    weight = "" if result.law.weight == "required" else f" ({result.law.weight})"
    print(plain(f"{mark}  {result.law.sentence}{weight}"))
    if result.why and result.why != said:
        print(plain(f"      {result.law.name}: {result.why}"))
    sys.stdout.flush()


def _verdict(report: Report) -> str:
    count = {which: sum(result.outcome == which for result in report.results) for which in ("pass", "fail", "skip")}
    said = {"A": "Every law holds", "B": "Every required law holds", "C": "A required law is broken", "-": "It could not be tried here"}
    return f"{said[report.grade]}: {count['pass']} hold, {count['fail']} do not, {count['skip']} could not be tried here."


def _plain(report: Report) -> dict[str, Any]:
    laws = [{"law": r.law.name, "sentence": r.law.sentence, "weight": r.law.weight.value, "outcome": r.outcome.value, "why": r.why}
            for r in report.results]
    return {"id": report.plugin, "grade": report.grade.value, "laws": laws}


@contextmanager
def silent() -> Iterator[None]:
    """Keep what plugins log from the screen: what matters of it is told in words."""
    import logging

    nowhere = logging.NullHandler()  # without any handler, warnings would go to the screen
    logging.getLogger().addHandler(nowhere)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(nowhere)
