"""A moment that was written down decides as it did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from backendai.model.group import GroupOptions, Preemption
from backendai.model.session import Arrange, Wishes
from backendai.sokovan.cluster import Cluster
from backendai.sokovan.plan import make_plan
from backendai.sokovan.record import Digester, pack, unpack
from backendai.sokovan.snapshot import Agent, Booking, Lease, Quota, Request, Snapshot
from backendai.sokovan.trial import thaw
from backendai.spec.scheduler_v10 import Account
from backendai_agentselector.concentrated import Concentrated
from backendai_scheduler.fifo import Fifo


def moment(seed: int) -> Snapshot:
    random, cluster = Random(seed), Cluster()
    for i in range(6):
        devices = {"gpu": {f"g{n}": 1000 for n in range(2)}} if i % 2 else {}
        capacity = {"cpu": 8000, "mem": 1 << 34, **({"gpu": 2000} if i % 2 else {})}
        cluster.put_agent(Agent(f"a{i}", f"agent{i}", capacity, {}, "" if i else "It is cordoned.", labels={"zone": "x"}, devices=devices))
    for i in range(8):
        at = random.randrange(1, 6)
        units = ({"gpu": {"g0": 100}},) if at % 2 else ()
        kernel = {"cpu": 500, **({"gpu": 100} if at % 2 else {})}
        cluster.hold(Lease(f"l{i}", "u", "p", "d", 10, 5.0, (kernel,), (f"a{at}",), random.choice((None, 99.0)), units=units))
    for i in range(9):
        wishes = random.choice((Wishes(), Wishes(agents=("agent1",), labels={"zone": "x"}, arrange=Arrange.PACK)))
        cluster.wait(Request(f"w{i}", "u", "p", "d", random.choice((10, 20)), float(random.randrange(9)),
                             ({"cpu": random.randrange(1, 9) * 1000},) * random.choice((1, 1, 3)), None, wishes))
    cluster.set_quotas([Quota("user", "u", "cpu", 20_000, 4000), Quota("project", "p", "sessions", 99, 8, borrow=True)])
    cluster.set_bookings([Booking("b", "maintenance", "d", {"a1": {"cpu": 1000}}, 200.0, 300.0)])
    cluster.set_accounts({"p": Account(2.0, 0.5)}, {"u": 0.25})
    cluster.set_options(GroupOptions(scheduler={"overtake": True}, preemption=Preemption(enabled=True)))
    return cluster.freeze(100.0)


@pytest.mark.parametrize("seed", range(10))
def test_what_was_packed_is_unpacked_whole_and_decides_the_same(seed: int) -> None:
    before = moment(seed)
    after = unpack(pack(before))
    assert after.view == before.view
    for name in ("names", "idle", "labels", "device_names", "requests", "leases", "bookings", "options"):
        assert getattr(after, name) == getattr(before, name), name
    assert set(after.quotas) == set(before.quotas)
    for name in ("capacity", "free", "kernels", "last_used", "mix", "weights"):
        assert np.array_equal(getattr(after, name), getattr(before, name)), name
    assert all(np.array_equal(after.devices[slot], table) for slot, table in before.devices.items())
    plans = [make_plan(snapshot, Fifo(), Concentrated()) for snapshot in (before, after)]
    assert plans[0].placements == plans[1].placements and plans[0].order == plans[1].order
    assert dict(plans[0].holds) == dict(plans[1].holds)


def test_the_digest_names_the_moment_and_nothing_else() -> None:
    digester, first, second = Digester(), moment(1), moment(2)
    named = [digester.of(snapshot) for snapshot in (first, second, first, unpack(pack(first)))]
    assert named[0] == named[2] == named[3] == Digester().of(first) and len(named[0]) == 64
    assert named[1] == Digester().of(second) != named[0], "what is remembered of the last moment is none of this one's"


@pytest.mark.parametrize("seed", range(5))
def test_whatever_a_decision_depends_on_changes_the_digest(seed: int) -> None:
    random, before = Random(seed), moment(seed)
    known = {Digester().of(before)}
    changes: list[Callable[[Cluster], None]] = [
        lambda cluster: cluster.leave(random.choice(list(before.requests))),
        lambda cluster: cluster.release(random.choice(list(before.leases))),
        lambda cluster: cluster.wait(replace(before.requests["w1"], time_limit_s=60.0)),
        lambda cluster: cluster.put_agent(replace(cluster.agent("a2"), labels={"zone": "y"})),
        lambda cluster: cluster.put_agent(replace(cluster.agent("a2"), why="It is cordoned.")),
        lambda cluster: cluster.set_quotas([]),
        lambda cluster: cluster.set_bookings([]),
        lambda cluster: cluster.set_accounts({}),
        lambda cluster: cluster.set_options(GroupOptions()),
        lambda cluster: cluster.set_mix([({"cpu": 1000}, 1.0)]),
    ]
    for change in changes:
        cluster = thaw(before)
        change(cluster)
        known.add(Digester().of(cluster.freeze(100.0)))
    known.add(Digester().of(thaw(before).freeze(101.0)))
    assert len(known) == len(changes) + 2


def test_bytes_that_are_none_are_refused() -> None:
    for wrong in (b"", b"nonsense", pack(moment(1))[:-9]):
        with pytest.raises(ValueError, match="no moment"):
            unpack(wrong)
