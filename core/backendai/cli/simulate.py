"""``bai simulate``: what the schedulers here would have made of a trace."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backendai.cli.plugin import silent
from backendai.cli.screen import Status, connect, say, show_json, show_table
from backendai.model.errors import Failure

if TYPE_CHECKING:
    from backendai.testing.simulate.measure import Result
    from backendai.testing.simulate.policy import Policy
    from backendai.testing.simulate.scene import Scene
    from backendai.testing.simulate.trace import Kind, Trace

LIVE = "live"
INTERRUPTED = 130
TOLD_EVERY = 256  # moments between two looks at how far it is


def arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_argument
    add("-t", "--trace", required=True, metavar="FILE", help="openb or Philly CSV, SWF, JSON lines; or `live`: the platform's own history")
    add("-n", "--nodes", metavar="NODES", help="75x8, 75xcpu=64,cuda.device=8 or a file; else what the trace or the platform has")
    add("--format", default="", choices=["jsonl", "openb", "philly", "swf"], help="of the trace, where its content does not tell")
    add("-s", "--scheduler", metavar="NAME", help="the scheduler plugin (backfill)")
    add("--selector", default="", metavar="NAME", help="the agentselector plugin (concentrated)")
    add("-o", "--option", action="append", default=[], metavar="WHOSE.NAME=VALUE", help="such as scheduler.depth=4 or selector.NAME=VALUE")
    add("-c", "--compare", metavar="A,B", help="several: SCHEDULER[:OPTION=VALUE][/SELECTOR], each beside the first")
    add("--load", type=float, default=1.0, metavar="X", help="have jobs come X times as fast")
    add("--sample", type=float, default=1.0, metavar="SHARE", help="run a share of the jobs only, chosen by --seed")
    add("--first", type=int, metavar="N", help="run the first N jobs only")
    add("--limit", default="auto", metavar="HOW", help="time limits: exact, x2 (twice the truth), user (the trace's), none")
    add("--preempt", action="store_true", help="let urgent jobs have others make room, where those may be preempted")
    add("--seed", type=int, default=0, metavar="N", help="of what is left to chance")
    add("--html", type=Path, metavar="FILE", help="write a page with plots")
    add("--save", type=Path, metavar="FILE", help="write the trace as JSON lines")


def run(options: Namespace) -> int:
    """Run the trace under each policy and print what came of it. Ctrl-C prints what there is."""
    from backendai.testing.simulate.scene import Choice, set_up

    if options.first is not None and options.first < 1:
        raise Failure("invalid-request", "--first must be at least 1.")
    policies = _policies(options)
    trace, kinds = _trace(options)
    if options.save is not None:
        from backendai.testing.simulate.lines import write_lines

        options.save.write_text(write_lines(trace))
    scene = set_up(trace, kinds, Choice(options.load, options.sample, options.first, options.limit, options.seed))
    results = _each(scene, policies, options.preempt)
    _show(options, scene, results)
    return INTERRUPTED if results[-1].stopped else 0


def _policies(options: Namespace) -> list[Policy]:
    """Return what is to be run, by --compare, or by --scheduler and --selector."""
    from backendai.testing.simulate.policy import SCHEDULER, SELECTOR, read_policy, with_options

    if options.compare and options.scheduler:
        raise Failure("invalid-request", "Name the schedulers in --compare, or one by --scheduler, not both.")
    named = options.compare or options.scheduler or SCHEDULER
    return [with_options(read_policy(part.strip(), options.selector or SELECTOR), options.option) for part in named.split(",")]


def _trace(options: Namespace) -> tuple[Trace, Sequence[Kind]]:
    """Return the trace and the nodes: those that are given, else the trace's own, else the platform's for its own history."""
    from backendai.testing.simulate.nodes import nodes_from
    from backendai.testing.simulate.read import read_trace

    trace = _live() if options.trace == LIVE else read_trace(Path(options.trace), options.format)
    if options.nodes:
        return trace, nodes_from(options.nodes, trace.unit)
    if not trace.nodes:
        raise Failure("invalid-request", f"{options.trace} does not say on which nodes its jobs are to run; add --nodes 75x8 "
                                         f"(75 nodes with {trace.unit}=8 each), or a file of nodes.")
    return trace, trace.nodes


def _live() -> Trace:
    """Return the sessions that the platform remembers, on the agents that it has now."""
    from backendai.cli.ps import collect
    from backendai.testing.simulate.live import from_platform

    with connect() as client:
        return from_platform(client.http.url, collect(client, True, None)["items"], client.get("/v1/agents")["items"])


def _each(scene: Scene, policies: Sequence[Policy], preempt: bool) -> list[Result]:
    """Run the scene under each policy, one after the other; an interrupted one is the last."""
    from backendai.model.group import GroupOptions, Preemption
    from backendai.testing.simulate.events import simulate
    from backendai.testing.simulate.measure import measure
    from backendai.testing.simulate.policy import plugins_of

    group = GroupOptions(preemption=Preemption(enabled=preempt))
    results: list[Result] = []
    with Status() as status, silent():
        for policy in policies:
            with plugins_of(policy) as (scheduler, selector):
                record = simulate(scene, scheduler, selector, group, _teller(status, str(policy), len(scene.tasks)))
            results.append(measure(record, policy.scheduler_said, policy.selector_said))
            if record.stopped:
                break
    return results


def _teller(status: Status, name: str, total: int) -> Any:
    """Return what says now and then how far a run is: often on a terminal, each tenth on a pipe."""
    calls, step = 0, 1 if sys.stderr.isatty() else max(1, total // 10)

    def tell(ended: int, now: float) -> None:
        nonlocal calls
        calls += 1
        if calls % TOLD_EVERY == 0 and ended >= step:
            status.show(f"{name}: {ended // step * step:,} of {total:,} jobs have ended")

    return tell


def _show(options: Namespace, scene: Scene, results: Sequence[Result]) -> None:
    """Print tables or JSON, and write the page."""
    from backendai.testing.simulate.table import classes, figures, plain

    title = f"{Path(options.trace).name}: {len(scene.tasks):,} jobs on {_nodes(scene)} with {_amount(scene)} {scene.unit}"
    if options.html is not None:
        from backendai.testing.simulate.page import page

        options.html.write_text(page(title, results, scene.notes))
    for note in scene.notes:
        say(note)
    if results[-1].stopped:
        say(f"Interrupted: {results[-1].ended:,} of {results[-1].jobs:,} jobs had ended under {results[-1].scheduler}.")
    if options.json:
        show_json({"trace": str(options.trace), "format": scene.format, "unit": scene.unit, "nodes": len(scene.agents),
                   "notes": list(scene.notes), "runs": [plain(result) for result in results]})
        return
    print(f"{title}\n")
    show_table(*figures(results))
    for what in ("size", "user", "priority"):
        heads, rows = classes(results, what)
        if len(rows) > len(results):
            print()
            show_table(heads, rows)


def _nodes(scene: Scene) -> str:
    return f"{len(scene.agents):,} {'node' if len(scene.agents) == 1 else 'nodes'}"


def _amount(scene: Scene) -> str:
    from backendai.model.slots import plain_slots

    return f"{plain_slots({scene.unit: scene.capacity})[scene.unit]:,}"
