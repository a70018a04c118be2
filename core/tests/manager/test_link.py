"""The agents' link on a listening manager."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest
from backendai.manager import link as links
from backendai.manager.orchestrator import Orchestrator
from backendai.wire.link import Beat, Desired, KernelState, Observed, Purge, Report, Usage, Welcome, encode


async def test_an_agent_is_welcomed_registered_and_shown(managed: Any) -> None:
    agent = managed.player("box")
    await agent.connect(features=("pull",), capacity={"cpu": 2000, "mem": 1 << 30})
    assert isinstance(agent.heard[0], Welcome) and agent.heard[0].cluster == managed.handle.cluster
    assert agent.heard[1] == Desired(1, True)
    shown = await managed.call("GET", "/v1/agents/box", status=200)
    assert shown["id"] == agent.id and shown["connected"] and shown["healthy"]
    assert shown["capacity"] == {"cpu": 2, "mem": 1 << 30} and shown["features"] == ["pull"]


@pytest.mark.parametrize("token", ["", "Bearer baa_nonsense", "user"])
async def test_a_link_needs_an_agents_token(managed: Any, token: str) -> None:
    head = {"Authorization": f"Bearer {managed.token}" if token == "user" else token} if token else {}
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await managed.http.ws_connect(f"{managed.url}/v1/link", headers=head)
    assert refused.value.status == (403 if token == "user" else 401)


@pytest.mark.parametrize(("protocol", "says"), [(2, "upgrade the manager"), (0, "upgrade the agent")])
async def test_another_protocol_is_refused_with_what_to_do(managed: Any, protocol: int, says: str) -> None:
    assert says in await managed.player("box").refused(protocol=protocol)


@pytest.mark.parametrize(("first", "says"), [
    (b"\xc1", "not understood"), (encode(Beat()), "must be a hello"), (b"", "not understood")])
async def test_what_is_no_hello_is_refused(managed: Any, first: bytes, says: str) -> None:
    agent = managed.player("box")
    socket = await agent.dial_in()
    await socket.send_bytes(first)
    assert says in await agent.farewell(socket)


async def test_a_name_in_use_is_refused(managed: Any) -> None:
    await managed.player("box").connect()
    assert "box" in await managed.player("box").refused()


async def test_the_newer_link_wins(managed: Any) -> None:
    agent = managed.player("box")
    old = await agent.connect()
    session = await managed.session()
    order = await agent.order(session["name"])
    await agent.connect(kernels=(Observed(order.kernel, KernelState.RUNNING, started_at=1.0),))
    assert "anew" in await agent.farewell(old)
    assert [o.kernel for o in agent.heard[-1].put] == [order.kernel], "the newer one was told everything"
    assert (await managed.call("GET", "/v1/agents/box"))["connected"], "the old one's end does not end the new one"
    await managed.until(session, "running")


async def test_reports_beats_and_advances_arrive(managed: Any) -> None:
    agent = managed.player("box")
    await agent.connect()
    session = await managed.session()
    order = await agent.order(session["name"])
    await agent.say(Report(1, (Observed(order.kernel, KernelState.PREPARING),)))
    await agent.advance(order.kernel, "12 of 40 MB")
    await managed.poll(lambda: managed.context.live.progress.get(session["id"]) == "12 of 40 MB")
    await agent.runs(order)
    await managed.until(session, "running")
    await agent.say(Beat(usage={order.kernel: Usage(at=1.0, memory=4096)}))
    await managed.poll(lambda: order.kernel in managed.context.live.usage)
    stats = await managed.call("GET", f"/v1/sessions/{session['id']}/stats", status=200)
    assert stats["kernels"][0]["usage"]["memory"] == 4096
    await agent.say(Beat(why="the engine does not answer"))
    await managed.poll_agent("box", lambda shown: shown["why"] == "the engine does not answer")


async def test_a_link_that_ends_is_noted(managed: Any) -> None:
    agent = managed.player("box")
    socket = await agent.connect()
    await socket.close()
    await managed.poll_agent("box", lambda shown: not shown["connected"])
    assert managed.context.live.links == {}


async def test_a_revoked_token_ends_the_link_at_the_next_beat(managed: Any) -> None:
    agent = managed.player("box")
    socket = await agent.connect()
    listed = await managed.call("GET", "/v1/tokens", status=200)
    for row in listed["items"]:
        if row["agent"]:
            await managed.call("DELETE", f"/v1/tokens/{row['id']}", status=204)
    await agent.say(Beat())
    assert "token" in await agent.farewell(socket)


async def test_an_agent_that_says_nothing_is_closed(managed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "SILENCE_S", 0.2)
    agent = managed.player("box")
    assert "said nothing" in await agent.farewell(await agent.connect())
    assert "no hello" in await agent.farewell(await agent.dial_in())


async def test_an_agent_that_does_not_read_is_cut_off(managed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "BACKLOG", 1 << 20)
    agent = managed.player("box")
    await agent.connect()
    link = managed.context.live.links[agent.id]
    for _ in range(100):
        link.send(Purge(("x" * 26,) * 10_000))
    assert "does not read" in link.reason
    await managed.poll(lambda: agent.id not in managed.context.live.links)


async def test_garbage_after_the_hello_ends_the_link(managed: Any) -> None:
    agent = managed.player("box")
    socket = await agent.connect()
    await socket.send_bytes(b"\x81\xa4type\xa4what")
    assert "not understood" in await agent.farewell(socket)


async def test_what_breaks_on_our_side_ends_the_link_and_is_reported(managed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = managed.player("box")
    socket = await agent.connect()

    def fail(self: Any, agent_id: str, report: Report) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(Orchestrator, "reported", fail)
    await agent.say(Report(1, ()))
    assert "manager's side" in await agent.farewell(socket)
    assert "backendai_unexpected_errors_total 1.0" in await managed.call("GET", "/metrics")


async def test_logs_are_purged_when_a_session_is_removed(managed: Any) -> None:
    agent, session, order = await managed.running()
    await agent.ends(order)
    await managed.until(session, "final")
    await managed.call("DELETE", f"/v1/sessions/{session['id']}", status=204)
    await managed.poll(lambda: Purge((order.kernel,)) in agent.heard)


async def test_stopping_the_manager_tells_the_agents(managed: Any) -> None:
    agent = managed.player("box")
    socket = await agent.connect()
    async with asyncio.timeout(10.0):
        await managed.stop()
    assert "stopping" in await agent.farewell(socket)


async def test_a_token_belongs_to_the_first_agent_that_uses_it(managed: Any) -> None:
    box, other = managed.player("box"), managed.player("other")
    await box.connect()
    await other.connect()
    thief = managed.player("third")
    thief.head = other.head
    assert "belongs to another agent" in await thief.refused()
    thief.id = box.id
    assert "belongs to another agent" in await thief.refused(), "nor may it say that it is one that has another token"
    assert {agent["name"] for agent in (await managed.call("GET", "/v1/agents"))["items"]} == {"box", "other"}
    await box.connect()


async def test_a_bound_token_takes_nobody_s_name_but_its_own_agent_s(managed: Any) -> None:
    box, other = managed.player("box"), managed.player("other")
    await (await box.connect()).close()
    await managed.poll_agent("box", lambda shown: not shown["connected"])
    await (await other.connect()).close()
    await managed.poll_agent("other", lambda shown: not shown["connected"])
    assert "belongs to another agent" in await other.refused(name="box")
    anew = managed.player("box")
    anew.head = other.head
    assert "belongs to another agent" in await anew.refused()
    anew.head = box.head
    await anew.connect()
    assert (await managed.call("GET", "/v1/agents/box"))["id"] == anew.id, "a machine that was set up anew keeps its token"
    assert "belongs to another agent" in await box.refused(name="box2"), "which is then no longer the old one's"
