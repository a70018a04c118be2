"""Microsoft's Philly trace on 75 nodes with 8 GPUs: how long a replay takes, and what backfilling does to completion times.

``python -m tests.bench.philly [TRACE [NODES]]``
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from backendai.testing.simulate.events import simulate
from backendai.testing.simulate.measure import Result, measure
from backendai.testing.simulate.nodes import nodes_from
from backendai.testing.simulate.policy import plugins_of, read_policy
from backendai.testing.simulate.read import read_trace
from backendai.testing.simulate.scene import Scene, set_up

from tests.bench.table import Row, at_most, bound, show
from tests.bench.traces import trace

NODES = "75x8"
AIM_S, AIM_RATIO = 60.0, 0.25


def replay(scene: Scene, scheduler_name: str) -> tuple[Result, float]:
    """Run it and return the figures and the seconds of this process that it took."""
    with plugins_of(read_policy(scheduler_name)) as (scheduler, selector):
        begun = time.process_time()
        record = simulate(scene, scheduler, selector)
        spent = time.process_time() - begun
    print(f"  {scheduler_name}: {len(record.plan_s):,} plans in {spent:.1f} s of a core", flush=True)
    return measure(record, scheduler_name, "concentrated"), spent


def row(what: str, ours: float, fifo: float) -> Row:
    """Compare hours with fifo's; nothing is aimed at."""
    return Row(what, f"{ours / 3600:.2f} h", f"{fifo / 3600:.2f} h", f"{ours / fifo:.2f}" if fifo else "", "", True)


def main(path: str = "", nodes: str = NODES) -> None:
    read = read_trace(Path(path) if path else trace("philly.csv"))
    scene = set_up(read, nodes_from(nodes, read.unit))
    for note in scene.notes:
        print(note)
    (ours, took), (fifo, fifo_took) = replay(scene, "backfill"), replay(scene, "fifo")
    show(f"{len(scene.tasks):,} jobs on {nodes}, backfill beside fifo, limits exact", [
        bound("replay under backfill", took, AIM_S, "s"),
        bound("replay under fifo", fifo_took, AIM_S, "s"),
        at_most("completion, mean", ours.jct_mean_s / 3600, fifo.jct_mean_s / 3600, AIM_RATIO, "h"),
        row("waiting, 99 % within", ours.waiting.ranks[3], fifo.waiting.ranks[3]),
        Row("in use while jobs came", f"{ours.busy:.1%}", f"{fifo.busy:.1%}", f"{ours.busy / fifo.busy:.2f}", "", True),
        Row("decisions", f"{ours.decisions_s:,.0f} /s", f"{fifo.decisions_s:,.0f} /s", f"{ours.decisions_s / fifo.decisions_s:.2f}", "",
            True)])


if __name__ == "__main__":
    main(*sys.argv[1:])
