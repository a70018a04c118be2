"""Quotas: what owners may hold is never exceeded, whoever races, and what is refused names everything that is wrong."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from backendai.manager.store.admission import Asking, Limits, admit, longest
from backendai.manager.store.engine import Store, Tx, open_store
from backendai.manager.store.quotas import Purse, Taker, for_group, lock, read_quotas, settle_quotas
from backendai.manager.store.schema import DEFAULT, PROJECT, domains, kernels, quotas, sessions, users
from backendai.model.errors import Failure
from sqlalchemy import insert, select, update


@pytest.fixture
async def store(db_url: str) -> AsyncIterator[Store]:
    store = await open_store(db_url, lambda _: None)
    try:
        yield store
    finally:
        await store.close()


def taker(cpu: int, user: str = "u1", group: str = DEFAULT, **more: int) -> Taker:
    return Taker(user, PROJECT, DEFAULT, group, {"cpu": cpu, "sessions": 1, **more})


async def allow(store: Store, *lines: tuple[str, str, str, int], group: str = "") -> None:
    """Set quotas: scope, its id, what, limit."""
    rows = [{"id": f"{group}{at}{what}", "scope": scope, "scope_id": id, "group_id": group, "what": what, "limit": limit}
            for at, (scope, id, what, limit) in enumerate(lines)]
    await store.write(lambda tx: tx.connection.execute(insert(quotas), rows))


async def used(store: Store) -> Mapping[tuple[str, str], int]:
    rows = await store.read(lambda connection: connection.execute(select(quotas)))
    return {(row.scope_id, row.what): row.used for row in rows}


async def take(store: Store, *takers: Taker, slowly: bool = False) -> list[bool]:
    """Take for each of *takers* in one transaction; return who got it."""

    async def job(tx: Tx) -> list[bool]:
        purse = await lock(tx.connection, takers)
        got = [not purse.take(one) for one in takers]
        if slowly:
            await asyncio.sleep(0.01)
        await purse.write(tx.connection)
        return got

    return await store.write(job)


async def give(store: Store, one: Taker) -> None:
    async def job(tx: Tx) -> None:
        purse = await lock(tx.connection, [one])
        purse.give(one)
        await purse.write(tx.connection)

    await store.write(job)


async def test_every_owner_and_both_kinds_of_groups_count(store: Store) -> None:
    await allow(store, ("user", "u1", "cpu", 4000), ("project", PROJECT, "cpu", 5000), ("domain", DEFAULT, "sessions", 3))
    await allow(store, ("user", "u1", "sessions", 1), group="gpu")
    assert await take(store, taker(3000), taker(2000), taker(1000, group="gpu"), taker(1, group="gpu")) == [True, False, True, False]
    assert await take(store, taker(1000, user="u2"), taker(1, user="u2")) == [True, False], "the project is full"
    await give(store, taker(3000))
    assert await used(store) == {("u1", "cpu"): 1000, (PROJECT, "cpu"): 2000, (DEFAULT, "sessions"): 2, ("u1", "sessions"): 1}


async def test_nothing_is_taken_of_one_quota_when_another_is_short(store: Store) -> None:
    await allow(store, ("user", "u1", "cpu", 4000), ("domain", DEFAULT, "cpu", 1000))

    async def job(tx: Tx) -> tuple[tuple[str, ...], Purse]:
        purse = await lock(tx.connection, [taker(2000)])
        return tuple(line.scope for line in purse.take(taker(2000))), purse

    short, purse = await store.write(job)
    assert short == ("domain",) and not +purse.moved


async def test_those_that_race_never_exceed_it(store: Store) -> None:
    await allow(store, ("user", "u1", "cpu", 5000))
    got = await asyncio.gather(*(take(store, taker(2000), slowly=True) for _ in range(6)))
    assert sum(one for some in got for one in some) == 2 and (await used(store))["u1", "cpu"] == 4000


async def test_a_purse_from_before_a_change_is_not_written(store: Store) -> None:
    await allow(store, ("user", "u1", "cpu", 5000))

    async def job(tx: Tx) -> None:
        purse = await lock(tx.connection, [taker(3000)])
        assert not purse.take(taker(3000))
        await tx.connection.execute(update(quotas).values(used=4000))
        await purse.write(tx.connection)

    with pytest.raises(Failure, match="changed in between") as refused:
        await store.write(job)
    assert refused.value.code == "conflict" and (await used(store))["u1", "cpu"] == 0


async def test_a_limit_that_was_lowered_keeps_nobody_from_giving_back(store: Store) -> None:
    await allow(store, ("user", "u1", "cpu", 5000))
    await take(store, taker(4000))
    await store.write(lambda tx: tx.connection.execute(update(quotas).values(limit=1000)))
    assert await take(store, taker(1)) == [False]
    await give(store, taker(2000))
    assert (await used(store))["u1", "cpu"] == 2000


async def test_a_project_borrows_what_its_domain_has_left_where_that_is_allowed(store: Store) -> None:
    await allow(store, ("project", PROJECT, "cpu", 1000), ("domain", DEFAULT, "cpu", 3000), ("project", PROJECT, "mem", 10))
    assert await take(store, taker(2000)) == [False]
    await store.write(lambda tx: tx.connection.execute(update(domains).values(borrow=True)))
    assert await take(store, taker(2000), taker(2000)) == [True, False], "the domain's own limit holds"
    assert await take(store, taker(0, mem=11)) == [False], "the domain says nothing of memory, so there is nothing to borrow"
    assert (await used(store))[PROJECT, "cpu"] == 2000
    lines = await store.read(read_quotas)
    assert {(line.scope, line.what): soft for line, soft in for_group(lines, DEFAULT)} == {
        ("project", "cpu"): True, ("domain", "cpu"): False, ("project", "mem"): False}


@pytest.mark.parametrize("seed", range(5))
async def test_used_is_the_sum_of_what_is_held_and_never_more_than_the_limit(store: Store, seed: int) -> None:
    dice, limits = random.Random(seed), {("u1", "cpu"): 7000, ("u2", "cpu"): 5000, (PROJECT, "cpu"): 9000, (DEFAULT, "sessions"): 4}
    scopes = {"u1": "user", "u2": "user", PROJECT: "project", DEFAULT: "domain"}
    await allow(store, *((scopes[id], id, what, limit) for (id, what), limit in limits.items()))
    held: list[Taker] = []
    for _ in range(40):
        if held and dice.random() < 0.4:
            await give(store, held.pop(dice.randrange(len(held))))
        else:
            some = [taker(dice.randrange(1, 4) * 1000, dice.choice(["u1", "u2"])) for _ in range(dice.randrange(1, 4))]
            held += [one for one, got in zip(some, await take(store, *some), strict=True) if got]
        sums: Counter[tuple[str, str]] = Counter()
        for one in held:
            sums.update({(scope, what): amount for scope in one.scopes for what, amount in one.amounts.items()})
        found = await used(store)
        assert all(found[key] == sums[key] <= limit for key, limit in limits.items()), (seed, found)


async def asked(store: Store, asking: Asking) -> bool:
    lines = await Limits().of(store, asking.one.scopes, asking.one.group)
    return await store.read(lambda connection: admit(connection, lines, asking))


async def hold(store: Store, id: str, cpus: list[int], state: str = "RUNNING", holds: bool = True) -> None:
    """Write a session with kernels as the orchestrator leaves it."""

    async def job(tx: Tx) -> None:
        if not (await tx.connection.execute(select(users.c.id))).first():
            await tx.connection.execute(insert(users), [{"id": "u1", "name": "ada", "role": "user", "active": True, "uid": 1, "gid": 1,
                                                         "created_at": 0.0}])
        row = {"id": id, "owner_id": "u1", "name": id, "type": "batch", "spec": "{}", "priority": 1, "state": state, "state_since": 0.0,
               "stop": False, "reason": "", "hold": "", "created_at": 0.0}
        await tx.connection.execute(insert(sessions), [row])
        await tx.connection.execute(insert(kernels), [{"id": f"{id}-{at}", "session_id": id, "role": "main", "idx": at, "holds": holds,
                                                       "state": "", "slots": f'{{"cpu": {cpu}}}'} for at, cpu in enumerate(cpus)])

    await store.write(job)


async def test_settling_makes_it_what_is_held_and_says_what_was_wrong(store: Store) -> None:
    await allow(store, ("user", "u1", "cpu", 9000), ("user", "u1", "sessions", 9), ("user", "u1", "waiting", 9))
    await hold(store, "s1", [1000, 2000])
    await hold(store, "s2", [4000], state="TERMINATED", holds=False)

    async def job(tx: Tx) -> list[str]:
        return await settle_quotas(tx.connection)

    assert sorted(await store.write(job)) == ["user u1: cpu 0, held are 3000", "user u1: sessions 0, held are 1"]
    assert await store.write(job) == []
    assert await used(store) == {("u1", "cpu"): 3000, ("u1", "sessions"): 1, ("u1", "waiting"): 0}


async def test_everything_that_is_too_much_is_named_at_once(store: Store) -> None:
    await hold(store, "s1", [1], state="PENDING", holds=False)
    await allow(store, ("user", "u1", "cpu", 2000), ("project", PROJECT, "kernels", 2), ("domain", DEFAULT, "lifetime", 3600),
                ("user", "u1", "waiting", 1), ("user", "u1", "mem", 1 << 30))
    given: Any = {"amounts": {"cpu": 3000, "mem": 1 << 30, "sessions": 1}}
    asking = Asking(Taker("u1", PROJECT, DEFAULT, DEFAULT, **given), kernels=3, time_limit_s=7200.0)
    with pytest.raises(Failure) as refused:
        await asked(store, asking)
    assert refused.value.code == "rejected" and refused.value.message == (
        "Quotas do not allow it: user ada may hold 2 cpu, and this alone needs 3; user ada may have 1 waiting, and has 1; project default "
        "may have 2 kernels in a session, and this has 3; domain default may run for 1h, and this wants 2h. "
        "Ask for less, or your administrator for more; see `bai quota ls`.")


async def test_a_full_queue_is_a_matter_of_time(store: Store) -> None:
    await hold(store, "s1", [1], state="PENDING", holds=False)
    await allow(store, ("user", "u1", "waiting", 2), ("user", "u2", "cpu", 1))
    asking = Asking(taker(1000))
    assert await asked(store, asking), "who waits was counted"
    assert not await asked(store, Asking(taker(1, user="u3")))
    await hold(store, "s2", [1], state="PENDING", holds=False)
    with pytest.raises(Failure, match="may have 2 waiting, and has 2") as refused:
        await asked(store, asking)
    assert refused.value.code == "too-many"


async def test_the_shortest_lifetime_counts(store: Store) -> None:
    await allow(store, ("user", "u1", "lifetime", 3600), ("domain", DEFAULT, "lifetime", 1800))
    await allow(store, ("user", "u1", "lifetime", 60), group="gpu")
    scopes, limits = ("u1", PROJECT, DEFAULT), Limits()
    assert [longest(await limits.of(store, scopes, group)) for group in (DEFAULT, "gpu")] == [1800.0, 60.0]
    assert longest(await limits.of(store, ("u9",), DEFAULT)) is None
    await allow(store, ("user", "u1", "lifetime", 5), group="tiny")
    assert await limits.of(store, ("u1",), "tiny") == await limits.of(store, ("u1",), "")
    limits.forget()
    assert longest(await limits.of(store, ("u1",), "tiny")) == 5.0
