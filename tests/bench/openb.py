"""Packing: how much of the GPUs is allocated when pods of Alibaba's openb for 130 % of them have come, by agent selector.

The method of Weng et al. (USENIX ATC 2023): the pods in a random order, then pods drawn at random until 130 % is asked for. They come
one after the other and stay; whoever finds no room is turned away. Means of ten seeds. The published figures are the last column of
hkust-adsl/kubernetes-scheduler-simulator, experiments/analysis/expected_results/analysis_allo_discrete.csv.

``python -m tests.bench.openb [PODS.csv [NODES.csv [SEEDS]]]``
"""

from __future__ import annotations

import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import cast

import numpy as np
from backendai.model.errors import Failure
from backendai.sokovan.cluster import Cluster
from backendai.sokovan.plan import make_plan
from backendai.sokovan.snapshot import Lease, Request
from backendai.spec.agentselector_v10 import AgentSelector, PlacementView
from backendai.spec.scheduler_v10 import Scheduler
from backendai.testing.simulate.nodes import nodes_from
from backendai.testing.simulate.openb import UNIT, each_pod
from backendai.testing.simulate.policy import plugins_of, read_policy
from backendai.testing.simulate.read import read_text
from backendai.testing.simulate.scene import Choice, Scene, Task, set_up
from backendai.testing.simulate.trace import Tally, Trace
from numpy.typing import NDArray

from tests.bench.table import Row, bound, show
from tests.bench.traces import trace

SEEDS = 10
ARRIVED = 1.3  # of the capacity
TOGETHER = 50  # pods that come between two plans; each is placed after the one before it
PUBLISHED = {"Random": 87.47, "DotProd": 90.85, "GpuClustering": 91.88, "GpuPacking": 92.00, "BestFit": 93.08, "FGD": 95.39}
SELECTORS = ("fragmentation", "concentrated", "dispersed")
AIM, AIM_RATE = 95.4, 1000.0


class Anywhere:
    """Any node with room, by a seed."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)

    def scores(self, view: PlacementView) -> NDArray[np.float64]:
        return self._random.random(len(view.agents))


@dataclass(frozen=True, slots=True)
class Packed:
    """allocated: the share of the GPUs. rate: decisions in a second of one core."""

    allocated: float
    rate: float


def arrivals(scene: Scene, seed: int) -> list[Task]:
    """Return the pods in a random order, followed by others drawn at random, until their GPUs come to ``ARRIVED``."""
    random = Random(seed)
    order = list(scene.tasks)
    random.shuffle(order)
    total, most = sum(task.size for task in order), ARRIVED * scene.capacity
    while total > most:
        total -= order.pop().size
    while total + (drawn := random.choice(scene.tasks)).size <= most:
        order.append(drawn)
        total += drawn.size
    return order


def pack(scene: Scene, seed: int, scheduler: Scheduler, selector: AgentSelector) -> Packed:
    """Let the pods come, and return what is allocated in the end."""
    cluster = Cluster()
    for agent in scene.agents:
        cluster.put_agent(agent)
    counts = Counter(tuple(sorted(task.request.kernels[0].items())) for task in scene.tasks)
    cluster.set_mix([(dict(shape), count) for shape, count in counts.items()])
    pods, held, spent = arrivals(scene, seed), 0, 0.0
    for first in range(0, len(pods), TOGETHER):
        some = {f"{i:06}": task for i, task in enumerate(pods[first:first + TOGETHER], first)}
        begun = time.thread_time()
        placed = decide(cluster, {id: replace(task.request, id=id, submitted_at=float(id)) for id, task in some.items()}, scheduler,
                        selector)
        spent += time.thread_time() - begun
        held += sum(some[id].size for id in placed)
    return Packed(held / scene.capacity * 100, len(pods) / spent)


def decide(cluster: Cluster, requests: dict[str, Request], scheduler: Scheduler, selector: AgentSelector) -> list[str]:
    """Place whoever fits, turn the others away, and return those that are placed."""
    for request in requests.values():
        cluster.wait(request)
    plan = make_plan(cluster.freeze(float(max(requests))), scheduler, selector)
    if plan.fault is not None:
        raise plan.fault.error
    for placement in plan.placements:
        r = requests[placement.session]
        cluster.hold(Lease(r.id, r.user, r.project, r.domain, r.priority, 0.0, r.kernels, placement.agents, units=placement.units))
    for id in requests:
        cluster.leave(id)
    return [placement.session for placement in plan.placements]


def measure(scene: Scene, seeds: int) -> dict[str, list[Packed]]:
    """Return what each selector packs, by seed."""
    found: dict[str, list[Packed]] = {}
    for name in SELECTORS:
        try:
            with plugins_of(read_policy(f"fifo:overtake=true/{name}")) as (scheduler, selector):
                found[name] = [pack(scene, seed, scheduler, selector) for seed in range(seeds)]
        except Failure as failure:
            print(f"Not measured: {failure.message}")
    with plugins_of(read_policy("fifo:overtake=true")) as (scheduler, _):
        found["any node with room"] = [pack(scene, seed, scheduler, cast(AgentSelector, Anywhere(seed))) for seed in range(seeds)]
    return found


def rows(found: dict[str, list[Packed]]) -> Sequence[Row]:
    """Return the rows: ours with their aims, then the published ones."""
    lines = []
    for name, runs in found.items():
        shares, rate = [run.allocated for run in runs], statistics.median(run.rate for run in runs)
        said = f"{statistics.mean(shares):.2f} % (from {min(shares):.2f} to {max(shares):.2f})"
        ours = name == SELECTORS[0]
        lines.append(Row(f"allocated, {name}", said, "", "", f"at least {AIM:g} %" if ours else "",
                         not ours or statistics.mean(shares) >= AIM))
        lines.append(bound(f"decisions, {name}", rate, AIM_RATE, "/s", low=False))
    return [*lines, *(Row(f"allocated, published, {name}", "", f"{share:.2f} %", "", "", True) for name, share in PUBLISHED.items())]


def main(pods: str = "", nodes: str = "", seeds: str = str(SEEDS)) -> None:
    path = Path(pods) if pods else trace("openb_pods.csv")
    kinds = nodes_from(nodes or str(trace("openb_nodes.csv")), UNIT)
    jobs = tuple(each_pod(str(path), read_text(path), Tally()))
    scene = set_up(Trace("openb", jobs, UNIT), kinds, Choice(limit="none"))
    for note in scene.notes:
        print(note)
    show(f"{len(jobs):,} pods of {path.name} on {len(scene.agents):,} nodes with {scene.capacity // 1000:,} GPUs, "
         f"until {ARRIVED:.0%} came, {seeds} seeds", rows(measure(scene, int(seeds))))


if __name__ == "__main__":
    main(*sys.argv[1:])
