"""A trace made ready to be run: which jobs, how quickly they come, what limits they give, on which nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from backendai.model.errors import Failure
from backendai.model.session import Wishes
from backendai.model.slots import Slots
from backendai.sokovan.snapshot import Agent, Request
from backendai.testing.simulate.fit import Fit, Splitter
from backendai.testing.simulate.trace import Job, Kind, Tally, Trace

LIMITS = ("auto", "exact", "user", "none")
DEFAULT = "default"  # project and domain where a trace names none
LEAST_LIMIT_S = 1.0  # a job that takes no time at all still has a limit


@dataclass(frozen=True, slots=True)
class Choice:
    """What to make of a trace. load: jobs come so many times as fast. sample: the share of the jobs that is run. first: at most so many.

    limit: ``exact`` (the true duration), ``x2`` and the like (so many times it), ``user`` (what the trace says), ``none``, or ``auto``:
    the users' where the trace has them, else exact. seed: of what is left to chance, which is sampling.
    """

    load: float = 1.0
    sample: float = 1.0
    first: int | None = None
    limit: str = "auto"
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Task:
    """A job as the scheduler sees it, and what only the simulator knows: how long it runs. cut: its limit ends it first."""

    request: Request
    duration_s: float
    size: int  # of the scene's unit, in its internal unit
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Scene:
    """Nodes and tasks, ordered by submission. capacity: of the unit, of all nodes. notes: what was left out, and why."""

    format: str
    unit: str
    agents: tuple[Agent, ...]
    tasks: tuple[Task, ...]
    capacity: int
    notes: tuple[str, ...] = ()


def set_up(trace: Trace, kinds: Sequence[Kind], choice: Choice | None = None) -> Scene:
    """Choose jobs, split them over the nodes, and leave out with a note those that the nodes could never hold."""
    choice = choice or Choice()
    agents = tuple(_agents(kinds))
    unit = trace.unit
    capacity = sum(agent.capacity.get(unit, 0) for agent in agents)
    if not capacity:
        raise Failure("invalid-request", f"The trace asks for {trace.unit}, of which the nodes have none; give them some, such as "
                                         f"--nodes 75x{trace.unit}=8.")
    splitter, tally, fit = Splitter(agents, unit, trace.splits), Tally(), Fit(agents)
    wishes, factor, tasks = _Wishes(agents), _factor(trace, choice.limit), []
    for job in _chosen(trace, choice):
        kernels, wish = splitter.split(job.kernels), wishes.of(job.models)
        if not fit.holds(kernels, wish):
            tally.add("asked for more than the nodes could ever hold, and was left out|asked for more than the nodes could ever hold, "
                      "and were left out")
            continue
        tasks.append(_task(job, kernels, wish, factor, unit))
    cut = sum(task.cut for task in tasks)
    tally.add("is ended by its time limit before it is done|are ended by their time limit before they are done", cut)
    if not tasks:
        raise Failure("invalid-request", "No job of the trace could run on these nodes; give more or larger ones with --nodes. "
                                         f"{' '.join(tally.notes())}")
    return Scene(trace.format, unit, agents, tuple(tasks), capacity, (*trace.notes, *splitter.notes(), *tally.notes()))


def _agents(kinds: Sequence[Kind]) -> list[Agent]:
    found: list[Agent] = []
    total = sum(kind.count for kind in kinds)
    width = len(str(total))
    for kind in kinds:
        for _ in range(kind.count):
            number = len(found) + 1
            name = kind.name if kind.count == 1 and kind.name != "node" else f"{kind.name}-{number:0{width}}"
            devices = {slot: {str(i): 1000 for i in range(count)} for slot, count in kind.devices.items()}
            found.append(Agent(f"{number:0{width}}-{name}", name, kind.slots, {}, labels={"model": kind.model} if kind.model else {},
                               devices=devices))
    return found


def _chosen(trace: Trace, choice: Choice) -> list[Job]:
    """Sample by the seed, then take the first."""
    if not 0 < choice.sample <= 1 or choice.load <= 0:
        raise Failure("invalid-request", "A sample is a share above 0 and up to 1, and a load is above 0.")
    jobs = list(trace.jobs)
    if choice.sample < 1:
        random = Random(choice.seed)
        jobs = [job for job in jobs if random.random() < choice.sample]
    jobs = jobs[: choice.first]
    if choice.load == 1 or not jobs:
        return jobs
    from dataclasses import replace

    begin = jobs[0].submitted_at
    return [replace(job, submitted_at=begin + (job.submitted_at - begin) / choice.load) for job in jobs]


def _factor(trace: Trace, limit: str) -> float | str | None:
    """Return what a true duration is multiplied with to give the limit, None for no limit, or ``user``."""
    if limit == "auto":
        limit = "user" if any(job.limit_s is not None for job in trace.jobs) else "exact"
    if limit == "none":
        return None
    if limit == "user":
        return limit
    try:
        factor = 1.0 if limit == "exact" else float(limit.removeprefix("x"))
    except ValueError:
        factor = 0.0
    if not 1 <= factor < 1e9:
        raise Failure("invalid-request", f"--limit {limit}: write {', '.join(LIMITS)}, or x2 for twice the true duration.")
    return factor


def _task(job: Job, kernels: tuple[Slots, ...], wish: Wishes, factor: float | str | None, unit: str) -> Task:
    limit = job.limit_s if isinstance(factor, str) else None if factor is None else max(LEAST_LIMIT_S, job.duration_s * factor)
    cut = limit is not None and job.duration_s > limit
    request = Request(job.id, job.user, job.project or DEFAULT, job.domain or DEFAULT, job.priority, job.submitted_at, kernels, limit, wish,
                      job.preemptible)
    return Task(request, limit if cut and limit is not None else job.duration_s, sum(kernel.get(unit, 0) for kernel in kernels), cut)


class _Wishes:
    """What wishing for some models of node comes to: a label where it is one, names where it is one of several."""

    def __init__(self, agents: Sequence[Agent]) -> None:
        self._agents = agents
        self._known: dict[tuple[str, ...], Wishes] = {(): Wishes()}

    def of(self, models: tuple[str, ...]) -> Wishes:
        """Return the wishes, one object for equal ones."""
        if models not in self._known:
            some = {agent.labels.get("model") for agent in self._agents} - {None}
            names: Mapping[bool, Wishes] = {
                False: Wishes(),  # the nodes tell no models, so every one may be it
                True: Wishes(labels={"model": models[0]}) if len(models) == 1 else
                Wishes(agents=tuple(agent.name for agent in self._agents if agent.labels.get("model") in models) or ("",))}
            self._known[models] = names[bool(some)]
        return self._known[models]
