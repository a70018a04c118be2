"""Explanations are worked out beside the loop: shared, bounded in number and in time, and never in the orchestrator's way."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

from backendai.manager import prospects as module
from backendai.manager.prospects import MOST, Prospects
from backendai.manager.store.schema import sessions
from backendai.sokovan.forecast import Habits

from core.tests.manager.stage import Stage, refused


async def test_one_answer_serves_all_who_ask_at_once_and_for_a_moment(stage: Stage) -> None:
    await stage.box("a", cpu=1)
    await stage.running(cpu=1)
    id = await stage.ask(cpu=1)
    await stage.look()
    prospects, asked = stage.context.prospects, 0
    source = stage.context.sights.source

    def counting(group: str) -> Any:
        nonlocal asked
        asked += 1
        return source(group)

    stage.context.sights.source = counting
    found = await asyncio.gather(*(prospects.of(stage.context, "default", {id}) for _ in range(9)))
    assert asked == 1 and all(one is found[0] for one in found) and found[0].positions == {id: 1}
    assert await prospects.of(stage.context, "default", {id}) is found[0]
    stage.now += 3
    assert await prospects.of(stage.context, "default", {id}) is not found[0] and asked == 2


async def test_who_came_a_moment_ago_is_in_the_answer(stage: Stage) -> None:
    await stage.box("a", cpu=1)
    await stage.running(cpu=1)
    first = await stage.ask(cpu=1)
    await stage.look()
    before = await stage.context.prospects.of(stage.context, "default", {first})
    second = await stage.ask(cpu=1)
    await stage.look()
    await asyncio.sleep(before.done * 5 - before.began * 5)
    assert (await stage.context.prospects.of(stage.context, "default", {second})).positions[second] == 2


async def test_whoever_gives_up_spoils_nothing_for_the_others(stage: Stage) -> None:
    await stage.box("a", cpu=1)
    await stage.look()
    first = asyncio.create_task(stage.context.prospects.of(stage.context, "default"))
    second = asyncio.create_task(stage.context.prospects.of(stage.context, "default"))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).positions == {}


async def test_the_loop_goes_on_while_a_question_is_worked_on() -> None:
    prospects, go_on, ticks = Prospects(), threading.Event(), 0
    working = asyncio.create_task(prospects.work(lambda late: go_on.wait(30)))
    for _ in range(50):
        await asyncio.sleep(0)
        ticks += 1
    assert not working.done() and ticks == 50
    go_on.set()
    assert await working is True
    prospects.close()


async def test_too_many_questions_are_refused_and_the_rest_answered() -> None:
    prospects, go_on = Prospects(), threading.Event()
    asked = [asyncio.create_task(prospects.work(lambda late: go_on.wait(30))) for _ in range(MOST)]
    await asyncio.sleep(0)
    assert (await refused(lambda: prospects.work(lambda late: None))).code == "too-many"
    go_on.set()
    assert all(await asyncio.gather(*asked))
    assert await prospects.work(lambda late: 7) == 7
    prospects.close()


async def test_a_plugin_that_hangs_costs_its_question_and_no_other(monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "WORK_S", -0.45)  # the limit is twice that and a second
    prospects, go_on = Prospects(), threading.Event()
    failure = await refused(lambda: prospects.work(lambda late: go_on.wait(30)))
    assert failure.code == "deadline" and "does not come to an end" in failure.message
    monkeypatch.setattr(module, "WORK_S", 2.0)
    assert await prospects.work(lambda late: "another thread") == "another thread"
    go_on.set()
    prospects.close()


async def test_a_question_is_told_when_its_time_is_up(monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "WORK_S", 0.02)
    prospects = Prospects()

    def job(late: Any) -> int:
        rounds = 0
        while not late():
            rounds += 1
            time.sleep(0.005)
        return rounds

    assert await prospects.work(job) >= 1
    prospects.close()


async def test_habits_are_those_of_the_group_and_need_enough_sessions(stage: Stage) -> None:
    await stage.box("a", cpu=4)
    assert await stage.context.prospects.habits(stage.context, "default") == Habits()
    template = dict((await stage.row(await stage.ask(time_limit_s=100.0)))._mapping)
    rows = [{**template, "id": f"{number:026}", "name": f"n{number}", "state": "TERMINATED", "started_at": 10.0,
             "ended_at": 10.0 + number * 10, "group_id": "default" if number <= 9 else "west"} for number in range(1, 20)]
    await stage.context.store.write(lambda tx: tx.connection.execute(sessions.insert(), rows))
    assert await stage.context.prospects.habits(stage.context, "default") == Habits(), "what is known is good for a minute"
    stage.now += 61
    found = await stage.context.prospects.habits(stage.context, "default")
    await stage.context.store.write(lambda tx: tx.connection.execute(sessions.delete().where(sessions.c.state == "TERMINATED")))
    assert found.runs == 9 and found.share == 0.25 and found.open_s == 25.0
