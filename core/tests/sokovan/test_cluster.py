"""The mirror: after any events it says what somebody would say who adds up everything anew."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest
from backendai.model.slots import SCALE
from backendai.sokovan.cluster import Cluster
from backendai.sokovan.snapshot import SESSIONS, Agent, Lease, Quota, Request, Snapshot

from core.tests.sokovan.worlds import GPU, NOW, make_world

SLOTS = ("cpu", "mem", GPU)


class Model:
    """A cluster as somebody would write it who has all the time in the world."""

    def __init__(self) -> None:
        self.agents: dict[str, Agent] = {}
        self.base: dict[str, Counter[str]] = {}  # used by nobody who is known
        self.leases: dict[str, Lease] = {}
        self.waiting: dict[str, Request] = {}

    def used(self, id: str) -> Counter[str]:
        """Add up what is lent."""
        total = Counter(self.base[id])
        for lease in self.leases.values():
            for agent, kernel in zip(lease.agents, lease.kernels, strict=True):
                if agent == id:
                    total.update(kernel)
        return total

    def check(self, snapshot: Snapshot) -> None:
        """Compare."""
        slots = snapshot.view.slots
        usable = sorted(id for id, agent in self.agents.items() if not agent.why)
        assert list(snapshot.rows) == usable and [node.id for node in snapshot.view.nodes] == usable
        for row, id in enumerate(usable):
            agent, used = self.agents[id], self.used(id)
            free = [max(0, agent.capacity.get(slot, 0) - used[slot]) for slot in slots]
            assert snapshot.free[row].tolist() == free == list(snapshot.view.nodes[row].free)
            assert int(snapshot.kernels[row]) == sum(lease.agents.count(id) for lease in self.leases.values())
            for index, table in snapshot.devices.items():
                names = snapshot.device_names[index][row]
                lent: Counter[str] = Counter()
                for lease in self.leases.values():
                    for where, units in zip(lease.agents, lease.units, strict=False):
                        if where == id:
                            lent.update(units.get(slots[index], {}))
                left = [max(0, agent.devices[slots[index]][name] - lent[name]) for name in names]
                assert table[row].tolist()[:len(names)] == left and set(table[row].tolist()[len(names):]) <= {-1}
        assert [w.id for w in snapshot.view.waiting] == [
            r.id for r in sorted(self.waiting.values(), key=lambda r: (r.submitted_at, r.id))]
        assert set(snapshot.waiting) == set(snapshot.requests) == set(self.waiting)
        assert [h.id for h in snapshot.view.holding] == sorted(self.leases)
        assert {w.id: w.kernels for w in snapshot.view.waiting} == {
            r.id: tuple(tuple(k.get(s, 0) for s in slots) for k in r.kernels) for r in self.waiting.values()}
        ends = sorted((float(at), usable[row], tuple(amounts)) for row, at, amounts in zip(
            snapshot.ends.row, snapshot.ends.at, snapshot.ends.amounts.tolist(), strict=True))
        assert ends == sorted((lease.ends_by, agent, tuple(kernel.get(s, 0) for s in slots)) for lease in self.leases.values()
                              if lease.ends_by is not None for agent, kernel in zip(lease.agents, lease.kernels, strict=True)
                              if agent in usable)


def agent(random: Random, id: str) -> Agent:
    gpus = random.randint(0, 2)
    return Agent(id, f"n{id}", {"cpu": 9 * SCALE, GPU: gpus * SCALE}, {}, random.choice(("", "", "It is away.")),
                 devices={GPU: {f"g{n}": SCALE for n in range(gpus)}} if gpus else {})


def step(random: Random, cluster: Cluster, model: Model, number: int) -> None:
    """Let something happen, to both."""
    what = random.random()
    if what < 0.2 or not model.agents:
        made = agent(random, f"a{random.randrange(4)}")
        if made.id in model.agents:
            made = replace(model.agents[made.id], why=made.why, capacity={**made.capacity, GPU: model.agents[made.id].capacity[GPU]})
        cluster.put_agent(replace(made, used=dict(model.used(made.id)), kernels=sum(
            lease.agents.count(made.id) for lease in model.leases.values())) if made.id in model.agents else made)
        if made.id not in model.agents:
            model.base[made.id] = Counter()
            model.agents[made.id] = made
        model.agents[made.id] = made
    elif what < 0.25 and not any(lease.agents for lease in model.leases.values()):
        id = random.choice(sorted(model.agents))
        cluster.drop_agent(id)
        del model.agents[id], model.base[id]
    elif what < 0.5:
        request = Request(f"s{number}", "u", "p", "d", 1, float(random.randrange(5)), tuple(
            {random.choice(SLOTS): random.randint(1, 2) * SCALE} for _ in range(random.randint(1, 2))))
        cluster.wait(request)
        model.waiting[request.id] = request
    elif what < 0.6 and model.waiting:
        id = random.choice(sorted(model.waiting))
        cluster.leave(id)
        del model.waiting[id]
    elif what < 0.8 and model.waiting:
        request = model.waiting.pop(random.choice(sorted(model.waiting)))
        where = tuple(random.choice(sorted(model.agents)) for _ in request.kernels)
        units = tuple({GPU: {"g0": 250}} if model.agents[id].devices and random.random() < 0.3 else {} for id in where)
        lease = Lease(request.id, "u", "p", "d", 1, 0.0, request.kernels, where, random.choice((None, NOW, NOW + 5)), units=units)
        cluster.hold(lease)
        model.leases[lease.id] = lease
    elif model.leases:
        id = random.choice(sorted(model.leases))
        cluster.release(id)
        del model.leases[id]


@pytest.mark.parametrize("seed", range(40))
def test_after_any_events_it_is_what_adding_up_says(seed: int) -> None:
    random, cluster, model = Random(seed), Cluster(), Model()
    for number in range(120):
        step(random, cluster, model, number)
        if random.random() < 0.4:
            model.check(cluster.freeze(NOW))


def test_what_was_frozen_stays_as_it_was() -> None:
    for seed in range(50):
        random = Random(seed)
        world = make_world(random)
        cluster = world.cluster()
        snapshot = cluster.freeze(NOW)
        before = (snapshot.view, snapshot.free.copy(), snapshot.kernels.copy(), {k: v.copy() for k, v in snapshot.devices.items()},
                  dict(snapshot.requests), dict(snapshot.leases))
        for request in world.waiting[::2]:
            cluster.leave(request.id)
        for lease in world.holding:
            cluster.release(lease.id)
        cluster.freeze(NOW + 1)
        after: Any = (snapshot.view, snapshot.free, snapshot.kernels, snapshot.devices, snapshot.requests, snapshot.leases)
        for old, new in zip(before, after, strict=True):
            if isinstance(old, np.ndarray):
                assert (old == new).all()
            elif old and isinstance(old, dict) and isinstance(next(iter(old.values())), np.ndarray):
                assert all((table == new[index]).all() for index, table in old.items())
            else:
                assert old == new


def test_what_is_lent_says_the_same_until_the_next_event() -> None:
    cluster = Cluster()
    cluster.put_agent(Agent("a", "a", {"cpu": 4 * SCALE}, {}))
    for id in ("one", "two"):
        cluster.wait(Request(id, "u", "p", "d", 0, NOW, ({"cpu": SCALE},)))
    lent, kept = cluster.freeze(NOW, lent=True), cluster.freeze(NOW)
    assert (lent.requests, lent.waiting, lent.view) == (kept.requests, kept.waiting, kept.view)
    cluster.leave("one")
    assert "one" in kept.requests and "one" not in lent.requests


def test_quotas_move_with_who_holds() -> None:
    cluster = Cluster()
    cluster.put_agent(Agent("a", "a", {"cpu": 9 * SCALE}, {}))
    cluster.set_quotas([Quota("user", "u", "cpu", 9, 1), Quota("project", "p", SESSIONS, 9, 0), Quota("array", "r", SESSIONS, 2, 0),
                        Quota("domain", "other", "cpu", 9, 0)])
    cluster.hold(Lease("h", "u", "p", "d", 1, 0.0, ({"cpu": 3}, {"cpu": 4}), ("a", "a"), array="r"))
    assert {(q.scope, q.used) for q in cluster.freeze(NOW).quotas} == {("user", 8), ("project", 1), ("array", 1), ("domain", 0)}
    cluster.release("h")
    assert {(q.scope, q.used) for q in cluster.freeze(NOW).quotas} == {("user", 1), ("project", 0), ("array", 0), ("domain", 0)}


def test_shapes_are_shared_by_those_who_ask_for_the_same() -> None:
    cluster = Cluster()
    for n, (cores, limit) in enumerate(((1, None), (1, 60.0), (2, None))):
        cluster.wait(Request(f"s{n}", f"u{n}", "p", "d", n, 0.0, ({"cpu": cores},), limit))
    shapes = [w.shape for w in cluster.freeze(NOW).view.waiting]
    assert shapes[0] == shapes[1] != shapes[2] and 0 not in shapes
    for n in range(5000):
        cluster.wait(Request("one", "u", "p", "d", 1, 0.0, ({"cpu": n},)))
    assert max(w.shape for w in cluster.freeze(NOW).view.waiting) < 2000, "those that nobody asks for any more are forgotten"


def test_a_new_slot_finds_its_column() -> None:
    cluster = Cluster()
    cluster.put_agent(Agent("a", "a", {"cpu": 5, "mem": 7}, {"mem": 2}))
    cluster.wait(Request("s", "u", "p", "d", 1, 0.0, ({"mem": 1},)))
    cluster.hold(Lease("h", "u", "p", "d", 1, 0.0, ({"cpu": 1},), ("a",), NOW + 5))
    cluster.wait(Request("t", "u", "p", "d", 1, 0.0, ({"gpu": 1},)))
    snapshot = cluster.freeze(NOW)
    assert snapshot.view.slots == ("cpu", "gpu", "mem") and snapshot.free.tolist() == [[4, 0, 5]]
    assert [w.kernels for w in snapshot.view.waiting] == [((0, 0, 1),), ((0, 1, 0),)]
    assert snapshot.ends.amounts.tolist() == [[1, 0, 0]] and snapshot.view.holding[0].kernels == ((1, 0, 0),)


def test_who_holds_may_be_told_before_the_agent_that_it_is_on() -> None:
    for first in (True, False):
        cluster = Cluster((GPU,))
        agent = Agent("a", "a", {GPU: 2 * SCALE}, {GPU: 600}, kernels=1, devices={GPU: {"g0": SCALE, "g1": SCALE}})
        lease = Lease("h", "u", "p", "d", 1, 0.0, ({GPU: 600},), ("a",), NOW + 5, units=({GPU: {"g1": 600}},))
        cluster.put_agent(Agent("c", "c", {}, {}))
        cluster.freeze(NOW)
        if first:
            cluster.put_agent(agent)
            cluster.hold(lease, counted=True)
        else:
            cluster.hold(lease, counted=True)
            cluster.freeze(NOW)
            cluster.put_agent(agent)
        snapshot = cluster.freeze(NOW)
        assert snapshot.free.tolist() == [[1400], [0]] and snapshot.kernels.tolist() == [1, 0]
        assert snapshot.devices[0].tolist() == [[1000, 400], [-1, -1]]
        assert snapshot.ends.row.tolist() == [0] and snapshot.ends.at.tolist() == [NOW + 5]
        assert snapshot.ends.units == (((0, 1, 600),),)
        cluster.put_agent(replace(cluster.agent("a"), capacity={GPU: 3 * SCALE}, devices={GPU: {"g0": SCALE, "g1": SCALE, "g2": SCALE}}))
        assert cluster.freeze(NOW).devices[0].tolist()[0] == [1000, 400, 1000]
