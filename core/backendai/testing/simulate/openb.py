"""Alibaba's openb: a CSV of pods, which ask for parts of a GPU or several whole ones, and a CSV of nodes."""

from __future__ import annotations

from backendai.model.slots import SCALE
from backendai.testing.simulate.columns import Cells, real, rows, whole
from backendai.testing.simulate.trace import Job, Kind, Tally, Trace, by_submission

NEEDS = ("cpu_milli", "memory_mib", "num_gpu")
NODE_NEEDS = ("cpu_milli", "memory_mib", "gpu")
UNIT = "cuda.shares"
MIB = 1 << 20
NEVER = -1.0  # the duration of a pod that never ran


def is_pods(head: list[str]) -> bool:
    """Tell by the names of the columns."""
    return set(NEEDS) <= set(head)


def is_nodes(head: list[str]) -> bool:
    """Tell by the names of the columns."""
    return set(NODE_NEEDS) <= set(head)


def read_pods(name: str, text: str) -> Trace:
    """Read the pods that ran. One that was never scheduled has no duration that anybody knows."""
    tally = Tally()
    jobs = [job for job in each_pod(name, text, tally) if job.duration_s >= 0]
    return Trace("openb", by_submission(jobs), UNIT, notes=tally.notes())


def each_pod(name: str, text: str, tally: Tally) -> list[Job]:
    """Read every pod in the order of the file; the duration of one that never ran is ``NEVER``."""
    return [_pod(row, tally) for row in rows(name, text, NEEDS)]


def _pod(row: Cells, tally: Tally) -> Job:
    created = row.read("creation_time", real, "0")
    began, ended = row.text("scheduled_time"), row.text("deletion_time")
    duration = NEVER
    if began and ended:
        duration = max(0.0, row.read("deletion_time", real) - row.read("scheduled_time", real))
    else:
        tally.add("never ran, or never ended, and was left out|never ran, or never ended, and were left out")
    wants = {"cpu": row.read("cpu_milli", whole), "mem": row.read("memory_mib", whole) * MIB, UNIT: _shares(row, tally)}
    models = tuple(sorted(part.strip() for part in row.text("gpu_spec").split("|") if part.strip()))
    qos = row.text("qos", "all")
    return Job(row.text("name", f"pod-{row.line - 1}"), qos, created, duration, ({slot: n for slot, n in wants.items() if n > 0},),
               project=qos, models=models)


def _shares(row: Cells, tally: Tally) -> int:
    """Return thousandths of devices: below 1000 a part of one, else whole ones, for so are several parts rounded."""
    count = row.read("num_gpu", whole, "0")
    each = row.read("gpu_milli", whole, str(SCALE) if count else "0")
    if count > 1 and 0 < each < SCALE:
        tally.add("asked for parts of several devices, and gets whole ones|asked for parts of several devices, and get whole ones")
        each = SCALE
    return count * min(each, SCALE)


def read_nodes(name: str, text: str) -> tuple[Kind, ...]:
    """Read the nodes, in the order of the file."""
    return tuple(_node(row) for row in rows(name, text, NODE_NEEDS))


def _node(row: Cells) -> Kind:
    devices = row.read("gpu", whole, "0")
    has = {"cpu": row.read("cpu_milli", whole), "mem": row.read("memory_mib", whole) * MIB, UNIT: devices * SCALE}
    return Kind(1, {slot: n for slot, n in has.items() if n > 0}, row.text("sn", f"node-{row.line - 1}"), row.text("model"),
                {UNIT: devices} if devices else {})
