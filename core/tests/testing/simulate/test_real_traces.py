"""The real traces, where they are: what is in them is read, and the beginning of one runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from backendai.testing.simulate.events import simulate
from backendai.testing.simulate.nodes import nodes_from
from backendai.testing.simulate.read import read_trace
from backendai.testing.simulate.scene import Choice, set_up

from core.tests.testing.simulate.plans import Easy, First
from tests.bench.traces import find


def real(name: str) -> Path:
    path = find(name)
    if path is None:
        pytest.skip(f"there is no {name}; BACKENDAI_TRACES names the folder that has it")
    return path


def test_philly_is_read_whole() -> None:
    trace = read_trace(real("philly.csv"))
    assert (len(trace.jobs), trace.notes) == (82247, ())
    assert sum(job.kernels[0]["cuda.device"] // 1000 * job.duration_s for job in trace.jobs) / 3600 == pytest.approx(978078, rel=1e-4)


def test_the_beginning_of_philly_runs() -> None:
    trace = read_trace(real("philly.csv"))
    record = simulate(set_up(trace, nodes_from("10x8", trace.unit), Choice(first=300)), Easy(), First())
    assert record.ended == len(record.scene.tasks) > 290


def test_openb_is_read_whole() -> None:
    trace = read_trace(real("openb_pods.csv"))
    assert (len(trace.jobs), trace.notes) == (7255, ("897 jobs never ran, or never ended, and were left out.",))
    kinds = nodes_from(str(real("openb_nodes.csv")), trace.unit)
    scene = set_up(trace, kinds)
    assert (len(scene.agents), scene.capacity) == (1213, 6212 * 1000)
    assert len(scene.tasks) == 7255
