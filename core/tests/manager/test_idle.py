"""Idle rules: when a session ends by them, that it is told before, that use puts it off, and that nobody else is touched."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from backendai.manager.activity import Activity
from backendai.manager.idle import Sample, Use, Verdict, Window, judge
from backendai.manager.store.schema import DEFAULT, events, groups
from backendai.manager.sweep import Sweeper
from backendai.model.group import GroupOptions, IdleRule
from backendai.model.session import SessionType
from backendai.wire.link import Usage
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select, update

H, GIB = 3600.0, 1 << 30
NETWORK = IdleRule("network", 3 * H, grace_s=600.0)
BUSY = IdleRule("utilization", H, thresholds={"cpu": 0.1})


def use(*series: Sample, started_at: float = 0.0, **more: Any) -> Use:
    return Use(frozenset({"u1", "p1", "d1"}), {"cpu": 2000, "mem": GIB}, started_at, series=series, **more)


def at(verdict: Verdict | None) -> float | None:
    return None if verdict is None else verdict.at


@pytest.mark.parametrize(("rule", "what", "expected"), [
    (NETWORK, use(), 3 * H),
    (NETWORK, use(active_at=5 * H), 8 * H),
    (replace(NETWORK, grace_s=9 * H), use(), 9 * H),
    (replace(NETWORK, scope_id="p1"), use(), 3 * H),
    (replace(NETWORK, scope_id="p2"), use(), None),
    (IdleRule("lifetime", 7 * H), use(active_at=6 * H), 7 * H),
    (IdleRule("magic", 1.0), use(), None),
    (BUSY, use(), None),
])
def test_the_end_that_a_rule_has_in_store(rule: IdleRule, what: Use, expected: float | None) -> None:
    assert at(judge(what, [rule], 4 * H)) == expected


def test_the_first_of_several_counts_and_says_why() -> None:
    verdict = judge(use(), [NETWORK, IdleRule("lifetime", 2 * H, warn_s=7.0)], 0.0)
    assert verdict == Verdict(2 * H, "It ran for 2h, the longest that is allowed here.", 7.0)


def steady(cores: float, until: float, memory: int = 0, step: float = 60.0) -> list[Sample]:
    """Return what a session measures that uses so many cores all the time."""
    count = int(until / step)
    return [Sample(n * step, n * step * cores, n * step * memory, memory) for n in range(count + 1)]


def test_a_session_that_computes_has_a_window_until_it_ends() -> None:
    """Of 2 cores a tenth is 0.2; who used one core until now is below the mean 0.2 when 0.2 h of it is left in the window."""
    verdict = judge(use(*steady(1.0, 4 * H)), [BUSY], 4 * H)
    assert at(verdict) == pytest.approx(4 * H + 0.8 * H, abs=2.0)
    assert verdict is not None and verdict.why == "It used less than 10 % of its cpu over 1h."


def test_one_that_does_nothing_ends_as_soon_as_a_whole_window_was_seen() -> None:
    assert at(judge(use(*steady(0.01, 0.5 * H)), [BUSY], 0.5 * H)) == H
    late = [replace(sample, at=sample.at + 5 * H) for sample in steady(0.01, 600.0)]
    assert at(judge(use(*late), [BUSY], 5 * H + 600)) == 6 * H, "after a restart of the manager the window begins anew"
    assert at(judge(use(*steady(0.01, 4 * H)), [BUSY], 4 * H)) == 4 * H


def test_every_threshold_must_be_undercut_and_what_cannot_be_measured_has_no_say() -> None:
    both = replace(BUSY, thresholds={"cpu": 0.1, "mem": 0.5, "cuda.device": 0.1})
    assert judge(use(*steady(0.01, 4 * H, memory=GIB)), [both], 4 * H) is None, "it holds its memory, and will go on"
    assert at(judge(use(*steady(0.01, 4 * H, memory=GIB // 4)), [both], 4 * H)) == 4 * H
    assert judge(use(*steady(0.01, 4 * H)), [replace(BUSY, thresholds={"cuda.device": 0.1})], 4 * H) is None
    unmeasured = [replace(sample, cpu_s=None) for sample in steady(0.01, 4 * H)]
    assert judge(use(*unmeasured), [BUSY], 4 * H) is None


@given(st.lists(st.tuples(st.floats(1.0, 900.0), st.floats(0.0, 2.0)), min_size=5, max_size=40))
def test_the_deadline_of_one_that_is_left_alone_is_when_it_is_struck(parts: list[tuple[float, float]]) -> None:
    """What is foretold with the last sample is what a judge finds then: idle at that moment, and not two seconds before."""
    series = [Sample(0.0, 0.0, 0.0, 0)]
    for seconds, cores in parts:
        last = series[-1]
        series.append(Sample(last.at + seconds, (last.cpu_s or 0.0) + seconds * cores, 0.0, 0))
    now = series[-1].at
    deadline = at(judge(use(*series), [BUSY], now))
    assert deadline is not None and deadline >= max(now, H)

    def mean(moment: float) -> float:
        quiet = [*series, Sample(moment, series[-1].cpu_s, 0.0, 0)] if moment > now else series
        begin = moment - H
        before = max((s for s in quiet if s.at <= begin), key=lambda s: s.at)
        after = min((s for s in quiet if s.at >= begin), key=lambda s: s.at)
        part = 0.0 if after.at == before.at else (begin - before.at) / (after.at - before.at)
        at_begin = (before.cpu_s or 0.0) + part * ((after.cpu_s or 0.0) - (before.cpu_s or 0.0))
        return ((series[-1].cpu_s or 0.0) - at_begin) / H / 2.0

    assert mean(deadline) < 0.1 + 1e-9
    if deadline - 2.0 > max(now, H):
        assert mean(deadline - 2.0) >= 0.1 - 1e-3


def test_a_window_keeps_what_the_longest_rule_needs() -> None:
    window = Window()
    for n in range(200):
        window.add(n * 60.0, [Usage(at=0.0, cpu_s=n * 1.0, memory=100), None], H)
    assert window.samples[0].at == 199 * 60 - H and len(window.samples) == 61
    assert window.samples[-1].cpu_s == 199 and window.samples[-1].memory_s == 199 * 60 * 100
    long = Window()
    for n in range(5000):
        long.add(n * 15.0, [Usage(at=0.0, cpu_s=n * 3.0, memory=7)], 50_000.0)
    assert len(long.samples) < 450 and long.samples[-1] == Sample(4999 * 15.0, 4999 * 3.0, 4999 * 15 * 7, 7), "thinned, and as exact"
    window.add(200 * 60.0, [], H)
    assert window.samples[-1].cpu_s == 199, "a kernel that has gone takes nothing back"


def test_devices_that_are_measured_have_a_say() -> None:
    rule, window = IdleRule("utilization", 600.0, thresholds={"cuda.device": 0.2}), Window()
    what = replace(use(), slots={"cuda.device": 1000})
    for n in range(41):  # busy for five minutes of the first ten, then for none
        window.add(n * 15.0, [Usage(at=0.0, devices={"cuda.device": 0.8 if n <= 20 else 0.0})], 600.0)
    used = replace(what, series=tuple(window.samples))
    assert at(judge(used, [rule], 600.0)) == pytest.approx(750.0, abs=2.0), "when two of the five busy minutes are left in the window"
    assert judge(replace(used, slots={"cpu": 1000}), [rule], 600.0) is None, "it holds none of them"


def test_an_open_stream_is_use_however_silent() -> None:
    activity, now = Activity(), [0.0]
    with activity.using("s", lambda: now[0]), activity.using("s", lambda: now[0]):
        assert activity.last("s", 50.0) == 50.0
        now[0] = 60.0
    assert activity.last("s", 100.0) == 60.0 and activity.last("t", 100.0) is None
    activity.forget("s")
    assert activity.last("s", 100.0) is None


async def rules(stage: Any, *some: IdleRule) -> None:
    text = msgspec.json.encode(GroupOptions(idle=some)).decode()
    await stage.context.store.write(lambda tx: tx.connection.execute(update(groups).where(groups.c.id == DEFAULT).values(options=text)))
    stage.context.groups.forget()


async def told(stage: Any, id: str) -> list[str]:
    kinds = events.c.type.in_(["session.expiring", "session.stop"])
    query = select(events.c.type).where(events.c.subject == id, kinds).order_by(events.c.id)
    return [row[0] for row in await stage.context.store.read(lambda connection: connection.execute(query))]


async def lab(stage: Any, **more: Any) -> str:
    return str(await stage.running(type=SessionType.INTERACTIVE, **more))


async def test_a_session_that_nobody_uses_is_warned_and_ended_with_the_reason(stage: Any) -> None:
    await stage.box("a")
    await rules(stage, IdleRule("network", H, warn_s=300.0))
    sweeper = Sweeper(stage.context)
    id, batch = await lab(stage), await stage.running()
    begin = stage.now
    await sweeper.judge_once()
    row = await stage.row(id)
    assert row.expires_at == pytest.approx(begin + H, abs=1.0) and row.expires_why == "Nobody was connected to it for 1h."
    assert await told(stage, id) == []
    stage.now = begin + H - 290
    assert await sweeper.judge_once() == 15.0
    await sweeper.judge_once()
    assert await told(stage, id) == ["session.expiring"], "once"
    stage.now = begin + H + 1
    await sweeper.judge_once()
    await stage.look()
    assert (await stage.row(id)).state == "TERMINATING"
    box, kernel = stage.on(id)
    while kernel in box.kernels and box.step(kernel):
        await stage.look()
    row = await stage.row(id)
    assert (row.state, row.reason) == ("TERMINATED", "Nobody was connected to it for 1h.")
    assert (await stage.row(batch)).state == "RUNNING" and await told(stage, batch) == []


async def test_whoever_uses_it_puts_its_end_off(stage: Any) -> None:
    await stage.box("a")
    await rules(stage, IdleRule("network", H, warn_s=300.0))
    sweeper = Sweeper(stage.context)
    id = await lab(stage)
    begin = stage.now
    stage.now += H - 100
    await sweeper.judge_once()
    assert await told(stage, id) == ["session.expiring"]
    with stage.context.activity.using(id, lambda: stage.now):
        stage.now += 2 * H
        await sweeper.judge_once()
    row = await stage.row(id)
    assert row.active_at == stage.now and row.expires_at == pytest.approx(stage.now + H), "written down, and shown"
    assert (await stage.row(id)).stop is False and begin < stage.now
    stage.now += H - 100
    await Sweeper(stage.context).judge_once()
    assert await told(stage, id) == ["session.expiring"] * 2, "announced anew, by a manager that was started since"


async def test_a_manager_that_was_away_warns_before_it_ends_anybody(stage: Any) -> None:
    await stage.box("a")
    await rules(stage, IdleRule("network", H, warn_s=300.0))
    id = await lab(stage)
    stage.now += 5 * H
    sweeper = Sweeper(stage.context)
    await sweeper.judge_once()
    assert await told(stage, id) == ["session.expiring"] and (await stage.row(id)).expires_at == stage.now + 60
    query = select(events.c.data).where(events.c.type == "session.expiring")
    said = (await stage.context.store.read(lambda connection: connection.execute(query))).scalar_one()
    assert msgspec.json.decode(said)["at"] == stage.now + 60
    stage.now += 59
    assert await sweeper.judge_once() == pytest.approx(1.0), "it looks again when the time is up"
    assert await told(stage, id) == ["session.expiring"]
    stage.now += 2
    await sweeper.judge_once()
    assert await told(stage, id) == ["session.expiring", "session.stop"]


async def test_a_rule_that_is_taken_away_takes_its_deadline_with_it(stage: Any) -> None:
    await stage.box("a")
    await rules(stage, IdleRule("lifetime", H), IdleRule("network", 2 * H, scope_id="somebody else"))
    id, limited = await lab(stage), await lab(stage, time_limit_s=60.0)
    sweeper = Sweeper(stage.context)
    await sweeper.judge_once()
    assert "the longest" in (await stage.row(id)).expires_why and (await stage.row(limited)).expires_why == "", "its own limit is nearer"
    await rules(stage)
    await sweeper.judge_once()
    assert (await stage.row(id)).expires_at is None and (await stage.row(id)).expires_why == ""
    row = await stage.row(limited)
    assert row.expires_at == pytest.approx(row.started_at + 60.0)


async def test_use_is_measured_by_what_agents_report(stage: Any) -> None:
    await stage.box("a")
    await rules(stage, IdleRule("utilization", 600.0, thresholds={"cpu": 0.5}, warn_s=0.0))
    busy, idle = await lab(stage), await lab(stage)
    sweeper, spent = Sweeper(stage.context), 0.0
    kernel = {id: stage.on(id)[1] for id in (busy, idle)}
    for _ in range(50):
        stage.now, spent = stage.now + 15.0, spent + 14.0
        stage.context.live.usage |= {kernel[busy]: Usage(at=stage.now, cpu_s=spent), kernel[idle]: Usage(at=stage.now, cpu_s=1.0)}
        await sweeper.judge_once()
    assert (await stage.row(idle)).stop and "less than 50 % of its cpu over 10m" in (await stage.row(idle)).stop_why
    assert not (await stage.row(busy)).stop and (await stage.row(busy)).expires_at > stage.now + 100


async def test_a_command_and_a_file_count_as_use(managed: Any) -> None:
    agent, session, _ = await managed.running(type="interactive", command=[])
    serving = asyncio.create_task(agent.serve())
    last = managed.context.activity.last
    assert last(session["id"], 0.0) is None
    await managed.call("POST", f"/v1/sessions/{session['id']}/exec", {"argv": ["x"]}, status=200)
    assert (first := last(session["id"], 0.0)) and abs(first - managed.context.clock()) < 10
    await managed.call("GET", f"/v1/sessions/{session['id']}/archive?path=/x", status=200)
    assert last(session["id"], 0.0) > first
    serving.cancel()
