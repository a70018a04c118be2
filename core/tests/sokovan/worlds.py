"""Random small worlds with everything in them, and what must hold of every plan that is made in one."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from backendai.model.group import GroupOptions, Preemption
from backendai.model.session import Arrange, Wishes, Zone
from backendai.model.slots import SCALE
from backendai.sokovan.cluster import Cluster
from backendai.sokovan.plan import Plan, make_plan
from backendai.sokovan.snapshot import SESSIONS, Agent, Booking, Lease, Quota, Request, Snapshot, Units
from backendai_agentselector.concentrated import Concentrated
from backendai_agentselector.dispersed import Dispersed
from backendai_scheduler.backfill import Backfill
from backendai_scheduler.fifo import Fifo

NOW = 1000.0
GPU = "cuda.shares"  # in devices


class Rowwise(Concentrated):
    """Says that it goes by agents one by one, so that the brain keeps its scores."""

    def rowwise(self) -> bool:
        """Say so."""
        return True


@dataclass(frozen=True)
class World:
    """What a plan is made from, as it is told."""

    agents: tuple[Agent, ...]
    waiting: tuple[Request, ...]
    holding: tuple[Lease, ...]
    quotas: tuple[Quota, ...] = ()
    bookings: tuple[Booking, ...] = ()
    options: GroupOptions = GroupOptions()  # noqa: RUF009  # it is frozen

    def cluster(self) -> Cluster:
        """Tell a cluster."""
        cluster = Cluster()
        for agent in self.agents:
            cluster.put_agent(agent)
        for request in self.waiting:
            cluster.wait(request)
        for lease in sorted(self.holding, key=lambda lease: lease.id):  # which agent was used last follows from the order
            cluster.hold(lease)
        cluster.set_quotas(self.quotas)
        cluster.set_bookings(self.bookings)
        cluster.set_options(self.options)
        return cluster

    def freeze(self) -> Snapshot:
        """Return the moment."""
        return self.cluster().freeze(NOW)


def make_world(random: Random, plain: bool = False) -> World:
    """Make a world; a plain one has no wishes, bookings, claims, quotas or preemption."""
    agents = [_agent(random, n) for n in range(random.randint(1, 5))]
    holding = _leases(random, agents)
    bookings = () if plain or random.random() < 0.6 else (_booking(random, agents, "b0"), _booking(random, agents, "b1"))
    waiting = [_request(random, n, plain, bookings, agents) for n in range(random.randint(0, 8))]
    used: Counter[tuple[str, str, str]] = Counter()
    for lease in holding:
        for key, amount in _counts(lease):
            used[key] += amount
    quotas = [] if plain else [
        Quota(scope, id, what, used[scope, id, what] + random.randint(0, 4) * (1 if what == SESSIONS else SCALE), used[scope, id, what],
              scope == "project" and random.random() < 0.5)
        for scope in ("user", "project", "domain") for id in (f"{scope[0]}0", f"{scope[0]}1") for what in (SESSIONS, "cpu", GPU)
        if random.random() < 0.2]
    preemption = Preemption(not plain and random.random() < 0.4, not plain and random.random() < 0.4, random.choice((0.0, 50.0)))
    return World(tuple(agents), tuple(waiting), tuple(holding), tuple(quotas), bookings, GroupOptions(preemption=preemption))


def plugins(random: Random) -> tuple[Any, Any]:
    """Choose a scheduler and a selector."""
    return (random.choice((Fifo(), Fifo(Fifo.Config(overtake=True)), Backfill(), Backfill())),
            random.choice((Concentrated(), Dispersed(), Rowwise(), Rowwise())))


def plan_of(world: World, random: Random) -> Plan:
    """Plan with some plugins."""
    return make_plan(world.freeze(), *plugins(random))


def check(world: World, plan: Plan) -> None:
    """Assert what every plan keeps to."""
    assert plan.fault is None, plan.fault
    agents = {agent.id: agent for agent in world.agents}
    requests = {request.id: request for request in world.waiting}
    placed = {p.session: p for p in plan.placements}
    assert len(placed) == len(plan.placements)
    assert placed.keys() | plan.holds.keys() == requests.keys() and not placed.keys() & plan.holds.keys()
    used: Counter[tuple[str, str]] = Counter()
    lent: Counter[tuple[str, str, str]] = Counter()
    for holder in [*world.holding, *((requests[id], p) for id, p in placed.items())]:
        kernels, where, units = ((holder.kernels, holder.agents, holder.units) if isinstance(holder, Lease)
                                 else (holder[0].kernels, holder[1].agents, holder[1].units))
        assert len(kernels) == len(where), "a gang is whole"
        for kernel, agent, devices in zip(kernels, where, units or ({},) * len(kernels), strict=True):
            for slot, amount in kernel.items():
                used[agent, slot] += amount
            if not isinstance(holder, Lease):
                assert not agents[agent].why
                check_units(kernel, agents[agent], devices)
            for slot, some in devices.items():
                for device, amount in some.items():
                    lent[agent, slot, device] += amount
    for (agent, slot), amount in used.items():
        assert amount <= agents[agent].capacity.get(slot, 0), f"{agent} lends {amount} {slot}"
    for (agent, slot, device), amount in lent.items():
        assert amount <= agents[agent].devices[slot][device] <= SCALE, f"{agent} lends {amount} of {device}"
    check_quotas(world, [requests[id] for id in placed])
    for id, placement in placed.items():
        check_wishes(requests[id], [agents[agent] for agent in placement.agents])


def check_units(kernel: Any, agent: Agent, devices: Units) -> None:
    """Assert that what a kernel has of devices is what it asked for."""
    for slot in agent.devices:
        amount = kernel.get(slot, 0)
        given = devices.get(slot, {})
        assert sum(given.values()) == amount
        assert len(given) == 1 if 0 < amount < SCALE else all(part == SCALE for part in given.values())


def check_quotas(world: World, placed: list[Request]) -> None:
    """Assert that no quota is exceeded by those placed."""
    sums: Counter[tuple[str, str, str]] = Counter()
    for request in placed:
        for key, amount in _counts(request):
            sums[key] += amount
    for quota in world.quotas:
        more = sums[quota.scope, quota.scope_id, quota.what]
        assert quota.borrow or not more or quota.used + more <= quota.limit, quota


def check_wishes(request: Request, agents: list[Agent]) -> None:
    """Assert that strict wishes have come true."""
    wishes = request.wishes
    assert not wishes.one_agent or len({agent.id for agent in agents}) == 1
    if not wishes.strict:
        return
    for agent in agents:
        assert not wishes.agents or agent.name in wishes.agents
        assert agent.name not in wishes.avoid
        assert all(agent.labels.get(name) == value for name, value in wishes.labels.items())
    zones = [agent.labels.get("zone") for agent in agents]
    if wishes.zone is not None and len(zones) > 1 and not wishes.one_agent:
        assert None not in zones
        assert len(set(zones)) == (1 if wishes.zone is Zone.SAME else len(zones))
    if wishes.arrange is Arrange.SPREAD and not wishes.one_agent:
        assert len({agent.id for agent in agents}) == len(agents)


def shuffled(world: World, random: Random) -> World:
    """Tell the same in another order."""
    def mixed(items: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(random.sample(items, len(items)))

    return replace(world, agents=mixed(world.agents), waiting=mixed(world.waiting), holding=mixed(world.holding),
                   quotas=mixed(world.quotas), bookings=mixed(world.bookings))


def _agent(random: Random, number: int) -> Agent:
    gpus = random.choice((0, 0, 1, 2, 3))
    capacity = {"cpu": random.randint(0, 6) * SCALE, GPU: gpus * SCALE}
    labels = {"zone": random.choice("xy")} if random.random() < 0.8 else {}
    return Agent(f"a{number}", f"n{number}", capacity, {}, random.choice(("",) * 6 + ("It is cordoned.",)), 0, random.randint(0, 3),
                 {**labels, "kind": random.choice("pq")}, {GPU: {f"g{n}": SCALE for n in range(gpus)}} if gpus else {})


def amounts(random: Random) -> dict[str, int]:
    """Ask for some cores, and perhaps for devices or a part of one."""
    devices = {GPU: random.choice((250, 500, 600, SCALE, 2 * SCALE))} if random.random() < 0.4 else {}
    return {"cpu": random.randint(0, 3) * SCALE, **devices}


def make_wishes(random: Random) -> Wishes:
    """Wish for something."""
    return Wishes(
        agents=("n0", "n1") if random.random() < 0.2 else (), avoid=("n1",) if random.random() < 0.2 else (),
        labels={"kind": "p"} if random.random() < 0.2 else {}, arrange=random.choice((None, None, Arrange.PACK, Arrange.SPREAD)),
        zone=random.choice((None, None, None, Zone.SAME, Zone.DIFFERENT)), one_agent=random.random() < 0.15, strict=random.random() < 0.7)


def _request(random: Random, number: int, plain: bool, bookings: tuple[Booking, ...], agents: list[Agent]) -> Request:
    kernels = tuple(amounts(random) for _ in range(random.choice((1, 1, 1, 2, 3))))
    if random.random() < 0.3:
        kernels = (kernels[0],) * len(kernels)
    wishes = make_wishes(random) if not plain and random.random() < 0.4 else Wishes()
    return Request(
        f"s{number}", f"u{random.randrange(2)}", f"p{random.randrange(2)}", f"d{random.randrange(2)}", random.randint(0, 2),
        float(random.randint(0, 3)), kernels, random.choice((None, 10.0, 50.0, 200.0)),
        wishes, random.random() < 0.5,
        tuple(random.choice(agents).id for _ in kernels) if not plain and wishes == Wishes() and random.random() < 0.2 else (),
        random.choice(bookings).id if bookings and random.random() < 0.3 else "")


def _leases(random: Random, agents: list[Agent]) -> list[Lease]:
    """Fill agents with sessions that fit, chosen device by device."""
    found = []
    for agent in agents:
        free = dict(agent.capacity)
        devices = dict.fromkeys(agent.devices.get(GPU, {}), SCALE)
        for _ in range(random.randint(0, 3)):
            wanted = {name: amount for name, amount in amounts(random).items() if amount}
            if any(free.get(name, 0) < amount for name, amount in wanted.items()):
                continue
            asked = wanted.get(GPU, 0)
            chosen = [d for d, left in devices.items() if left >= min(asked, SCALE)][:max(1, asked // SCALE)]
            if asked and len(chosen) < max(1, asked // SCALE):
                continue
            units = {GPU: {device: min(asked, SCALE) for device in chosen}} if asked else {}
            for name, amount in wanted.items():
                free[name] -= amount
            for device in units.get(GPU, {}):
                devices[device] -= min(asked, SCALE)
            number = len(found)
            found.append(Lease(
                f"h{number}", f"u{random.randrange(2)}", f"p{random.randrange(2)}", f"d{random.randrange(2)}", random.randint(0, 2),
                NOW - random.randint(0, 100), (wanted,), (agent.id,), random.choice((None, NOW + 20, NOW + 60, NOW + 150)),
                random.random() < 0.6, (units,) if units else ()))
    return found


def _booking(random: Random, agents: list[Agent], id: str) -> Booking:
    begins = NOW + random.choice((-10.0, 30.0, 100.0))
    some = random.sample(agents, random.randint(1, len(agents)))
    return Booking(id, id, "d0", {agent.id: {"cpu": random.randint(0, 3) * SCALE} for agent in some}, begins, begins + 100.0)


def _counts(who: Request | Lease) -> list[tuple[tuple[str, str, str], int]]:
    sums = Counter({SESSIONS: 1})
    for kernel in who.kernels:
        sums.update(kernel)
    scopes = (("user", who.user), ("project", who.project), ("domain", who.domain))
    return [((scope, id, what), amount) for scope, id in scopes for what, amount in sums.items()]
