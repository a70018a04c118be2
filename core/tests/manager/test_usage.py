"""Usage accounting: every second that is held is in the books once, whoever ends, moves or dies meanwhile."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from backendai.manager.store.engine import Tx
from backendai.manager.store.schema import DEFAULT, PROJECT, groups, kernels, shares, usage
from backendai.manager.store.usage import Base, Piece, accounts, begin_tick, days, decay, tick, weigh
from backendai.manager.usage import count_parts
from backendai.wire.link import KernelState
from sqlalchemy import select, update

K = KernelState


async def bring_up(stage: Any) -> None:
    async def begin(tx: Tx) -> None:
        await begin_tick(tx.connection, stage.now)

    await stage.context.store.write(begin)
    await count_parts(stage.context.store, stage.now, most=2)  # so that there are several parts


async def books(stage: Any) -> dict[str, float]:
    """Return what is in the books by slot: core seconds, byte seconds, session seconds."""
    sums: Counter[str] = Counter()
    for row in await stage.context.store.read(lambda connection: connection.execute(select(usage))):
        sums[row.slot] += row.amount_s / 1000 if row.slot == "cpu" else row.amount_s
    return dict(sums)


async def test_a_session_is_counted_from_its_placement_to_its_end(stage: Any) -> None:
    await stage.box("a")
    id = await stage.running(cpu=2, mem="1g")
    begin = stage.now
    stage.now += 100.0
    await bring_up(stage)
    assert await books(stage) == pytest.approx({"cpu": 200.0, "mem": 100.0 * (1 << 30), "sessions": 100.0})
    stage.now += 50.0
    await stage.see(id, K.EXITED, exit_code=0)
    await stage.see(id, K.GONE, exit_code=0)
    held = stage.now - begin
    for _ in range(3):
        stage.now += 1000.0
        await bring_up(stage)
    assert await books(stage) == pytest.approx({"cpu": 2 * held, "mem": held * (1 << 30), "sessions": held}), "and not a second more"
    rows = await stage.context.store.read(lambda connection: connection.execute(select(kernels.c.counted_at)))
    assert [row[0] for row in rows] == [None]


@pytest.mark.parametrize("seed", range(2))
async def test_the_books_are_right_whenever_the_manager_is_killed(stage: Any, seed: int) -> None:
    """What is held is looked at by the test after each step; the manager counts when it likes, and dies when it likes."""
    dice = random.Random(seed)
    await stage.box("a", cpu=8)
    held, true, last = 0.0, 0.0, stage.now
    ids = [await stage.ask(cpu=dice.choice([1, 2, 3])) for _ in range(6)]
    for _ in range(25):
        stage.now += dice.choice([0.5, 7.0, 60.0])
        step = dice.random()
        if step < 0.25:
            await bring_up(stage)
        elif step < 0.4:
            await stage.kill()
            await stage.start()
            for box in stage.boxes:
                await box.connect()
                box.hear()
        elif step < 0.7:
            some = [(box, kernel) for box in stage.boxes for kernel in list(box.kernels)]
            for box, kernel in dice.sample(some, min(len(some), 2)):
                box.step(kernel)
        elif step < 0.8:
            ids.append(await stage.ask(cpu=dice.choice([1, 2])))
        true, last = true + held * (stage.now - last), stage.now
        await stage.look()
        held = sum(amount for (_, slot), amount in (await stage.ledger()).items() if slot == "cpu") / 1000
    await bring_up(stage)
    assert (await books(stage))["cpu"] == pytest.approx(true), seed


async def test_what_is_not_committed_is_counted_again_and_no_more(stage: Any) -> None:
    await stage.box("a")
    await stage.running(cpu=1)
    stage.now += 10.0

    async def dies(tx: Tx) -> None:
        await begin_tick(tx.connection, stage.now)
        await tick(tx.connection, stage.now)
        raise RuntimeError("killed before the commit")

    with pytest.raises(RuntimeError):
        await stage.context.store.write(dies)
    await bring_up(stage)
    assert (await books(stage))["cpu"] == pytest.approx(10.0)


async def test_a_clock_that_is_set_back_takes_nothing_away(stage: Any) -> None:
    await stage.box("a")
    await stage.running(cpu=1)
    stage.now += 10.0
    await bring_up(stage)
    stage.now -= 8.0
    await bring_up(stage)
    stage.now += 9.0
    await bring_up(stage)
    assert (await books(stage))["cpu"] == pytest.approx(11.0), "the seconds that came twice are counted once"


def test_a_night_is_shared_by_two_days() -> None:
    midnight = 1_800_057_600.0  # 2027-01-16
    assert list(days(midnight - 60, midnight + 86400 + 1)) == [("2027-01-15", 60.0), ("2027-01-16", 86400.0), ("2027-01-17", 1.0)]
    assert list(days(5.0, 5.0)) == []


def test_usage_counts_by_its_dominant_slot_and_fades() -> None:
    base = Base({"cpu": 10_000, "mem": 100}, half_life_s=1000.0)
    half = Piece("u", "p", "d", "g", {"cpu": 1000, "mem": 50, "gone": 7}, 0.0, 10.0)
    assert weigh(half, base) == pytest.approx(5.0, rel=0.01), "half of the memory for ten seconds"
    whole = Piece("u", "p", "d", "g", {"mem": 100}, 0.0, 1e9)
    assert weigh(whole, base) == pytest.approx(1000 / 0.6931, rel=1e-3), "what is held for ever counts half-life / ln 2"
    assert weigh(half, Base({}, 1000.0)) == 0 and decay(1000, 1000) == 0.5 and decay(-5, 1000) == 1.0


async def test_fair_sharing_remembers_by_domain_project_and_user(stage: Any) -> None:
    await stage.box("a", cpu=4, mem=16)
    await stage.context.store.write(lambda tx: tx.connection.execute(update(groups).values(options='{"half_life_s": 1000}')))
    await stage.running(cpu=2)
    for _ in range(10):  # how often it is counted makes no difference
        stage.now += 100.0
        await bring_up(stage)
    expected = weigh(Piece("", "", "", "", {"cpu": 2000}, 0.0, 1000.0), Base({"cpu": 4000}, 1000.0))
    found = await stage.context.store.read(lambda connection: accounts(connection, stage.now))
    user = f"{PROJECT}/{stage.caller.id}"
    used = {name: account.usage for name, account in found[DEFAULT].items()}
    assert used == pytest.approx({DEFAULT: expected, PROJECT: expected, user: expected})
    later = await stage.context.store.read(lambda connection: accounts(connection, stage.now + 2000.0))
    assert later[DEFAULT][user].usage == pytest.approx(expected / 4) and later[DEFAULT][user].weight == 1.0
    rows = (await stage.context.store.read(lambda connection: connection.execute(select(shares)))).all()
    assert {row.group_id for row in rows} == {DEFAULT}
