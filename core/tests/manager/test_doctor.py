"""The doctor: it finds what is wrong and says so in words, calls nothing wrong that is on its way, and mends what can be mended."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from backendai.manager.diagnosis import Books, Held, compare
from backendai.manager.store.schema import DEFAULT, agent_slots, agents, quotas, sessions
from sqlalchemy import insert, select, update

RUNS = {"state": "running", "dropped": False, "container": "c"}


async def examine(managed: Any, **body: Any) -> dict[str, list[dict[str, Any]]]:
    return await managed.call("POST", "/v1/doctor", body, status=200)  # type: ignore[no-any-return]  # a JSON object


def said(found: dict[str, Any]) -> list[str]:
    return [f"{finding['subject']}: {finding['what']}" for finding in found["findings"]]


async def write(managed: Any, statement: Any) -> None:
    await managed.context.store.write(lambda tx: tx.connection.execute(statement))


async def test_a_platform_that_is_well_has_no_findings(managed: Any) -> None:
    agent, _, _ = await managed.running()
    serving = asyncio.create_task(agent.serve())
    assert await examine(managed) == {"findings": [], "agents": {"box": 1}, "silent": {}}
    serving.cancel()


async def test_ledgers_that_are_wrong_are_named_and_mended(managed: Any) -> None:
    agent, _, _ = await managed.running(slots={"cpu": 2, "mem": "1g"})
    serving = asyncio.create_task(agent.serve())
    row = {"id": "q", "scope": "domain", "scope_id": DEFAULT, "group_id": "", "what": "cpu", "limit": 64_000, "used": 7000}
    await write(managed, insert(quotas).values(row))
    await write(managed, update(agent_slots).where(agent_slots.c.slot == "cpu").values(used=5000))
    found = await examine(managed)
    assert said(found) == ["agent box: Its ledger says that cpu=5 is used, and cpu=2 is held.",
                           "quota of domain default: It says that 7 cpu is used, and 2 is held."]
    assert not any(finding["mended"] for finding in found["findings"])
    found = await examine(managed, mend=True)
    assert len(found["findings"]) == 2 and all(finding["mended"] for finding in found["findings"])
    assert (await examine(managed))["findings"] == []
    used = await managed.context.store.read(lambda connection: connection.execute(select(agent_slots.c.slot, agent_slots.c.used)))
    assert dict(tuple(row) for row in used) == {"cpu": 2000, "mem": 1 << 30}
    serving.cancel()


async def test_an_agent_without_its_kernel_is_made_to_tell_anew(managed: Any) -> None:
    agent, session, _ = await managed.running()
    agent.orders.clear()  # it has forgotten everything
    serving = asyncio.create_task(agent.serve())
    found = await examine(managed, mend=True)
    assert said(found) == [f"agent box: The session {session['name']} should have a kernel there that it knows nothing of."]
    assert found["findings"][0]["mended"] and "doctor" in await agent.farewell(agent.socket)
    await agent.connect()
    assert (await managed.until(session, "final"))["reason"] == "The agent box came back without it."
    serving.cancel()


async def test_an_agent_that_does_not_answer_is_said_to_be_silent(managed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = managed.player("box")
    await agent.connect()
    monkeypatch.setattr("backendai.manager.operations.doctor.ASK_S", 0.1)
    assert "did not answer within 0.1 s" in (await examine(managed))["silent"]["box"]


async def test_what_lasts_too_long_and_belongs_nowhere_is_found(managed: Any) -> None:
    agent, _, _ = await managed.running()
    serving = asyncio.create_task(agent.serve())
    await agent.socket.close()
    await managed.poll_agent("box", lambda shown: not shown["connected"])
    await write(managed, update(agents).values(group_id="gone"))
    await write(managed, update(sessions).values(state="PREPARING", deadline=managed.context.clock() - 1e6))
    found = said(await examine(managed))
    assert any(one.startswith("agent box: It has been away for") for one in found)
    assert "agent box: The resource group that it belongs to is gone." in found
    serving.cancel()


async def test_only_superadmins_ask_the_doctor(managed: Any) -> None:
    ada = await managed.user("ada")
    for mend in (False, True):
        await managed.call("POST", "/v1/doctor", {"mend": mend}, token=ada, status=403)


def books(**held: str) -> Books:
    """Return books by which these kernels are on the agent a, each with the state that it said last."""
    return Books({id: Held(id, f"of-{id}", "a", state) for id, state in held.items()}, {"a": "box"}, ())


@pytest.mark.parametrize(("before", "after", "journal", "boxes", "expected"), [
    (books(k="running"), books(k="running"), {"k": RUNS}, {"k": "running"}, []),
    (books(k="running"), books(k="running"), {}, {}, ["knows nothing of"]),
    (books(k="running"), books(), {}, {}, []),  # it ended meanwhile
    (books(k=""), books(k=""), {}, {}, []),  # ordered, and not confirmed yet
    (books(), books(k="running"), {"k": RUNS}, {"k": "running"}, []),  # it came meanwhile
    (books(), books(), {"k": RUNS}, {"k": "running"}, ["which nobody wants there"]),
    (books(), books(), {"k": {**RUNS, "dropped": True}}, {"k": "running"}, []),  # it is being removed
    (books(), books(), {"k": {**RUNS, "state": "gone"}}, {}, []),
    (books(k="running"), books(k="running"), {"k": RUNS}, {"k": "exited"}, ["its runtime has none that does"]),
    (books(k="running"), books(k="running"), {"k": {**RUNS, "state": "exited"}}, {}, []),  # a report is on its way
    (books(), books(), {}, {"k": "running"}, ["belongs to no kernel"]),
])
def test_an_agent_is_held_against_the_books(before: Books, after: Books, journal: dict[str, Any], boxes: dict[str, str],
                                            expected: list[str]) -> None:
    answer = {"kernels": [{"kernel": id, **one} for id, one in journal.items()],
              "containers": [{"kernel": id, "id": "c" * 20, "name": "", "state": state} for id, state in boxes.items()]}
    found = list(compare("a", "box", before, after, answer))
    assert len(found) == len(expected)
    assert all(word in finding.what and finding.subject == "agent box" for word, finding in zip(expected, found, strict=True))
