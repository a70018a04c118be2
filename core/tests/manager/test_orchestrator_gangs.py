"""Sessions of several kernels: placed together, as far as the slowest of them, and ended together."""

from __future__ import annotations

from typing import Any

import pytest
from backendai.manager.operations.asking import PartInput, WishesInput
from backendai.model.session import DEADLINES, Arrange, SessionState, SessionType
from backendai.wire.link import KernelState as K
from backendai.wire.link import Want

from core.tests.manager.stage import GIB, Box, Stage, orders, refused

S = SessionState


async def gang(stage: Stage, subs: int = 2, **more: Any) -> str:
    """Ask for a cluster of one main and some sub kernels, on one agent unless told otherwise."""
    parts = (PartInput(role="main"), PartInput(role="sub", count=subs)) if subs else ()
    return await stage.ask(cluster=parts, **{"wishes": WishesInput(one_agent=True), **more})


async def running(stage: Stage, **more: Any) -> str:
    id = await gang(stage, **more)
    await stage.look()
    for name in await names(stage, id):
        await stage.say(id, name, K.RUNNING)
    assert await stage.state(id) == "RUNNING"
    return id


async def names(stage: Stage, id: str) -> list[str]:
    return sorted(stage.kernels(id))


async def test_a_gang_is_placed_whole_and_each_kernel_knows_the_others(stage: Stage) -> None:
    box = await stage.box("box")
    id = await gang(stage, cpu=1, mem="1g")
    await stage.look()
    assert await stage.ledger() == {(box.id, "cpu"): 3000, (box.id, "mem"): 3 * GIB}
    told = orders(box)
    assert [order.hostname for order in told] == ["main1", "sub1", "sub2"]
    assert all([peer.host for peer in order.peers] == ["main1", "sub1", "sub2"] for order in told)
    assert {order.kernel for order in told} == {peer.kernel for peer in told[0].peers} and told[0].net is None
    assert (told[1].role, told[1].idx, told[1].attempt) == ("sub", 1, 1)
    assert (await stage.row(id)).agent_id == box.id


async def test_a_gang_that_does_not_fit_whole_is_not_placed(stage: Stage) -> None:
    box = await stage.box("box", cpu=3)
    await stage.running(cpu=1)
    id = await gang(stage, subs=2, cpu=1)
    await stage.look()
    assert await stage.state(id) == "PENDING" and (await stage.ledger())[box.id, "cpu"] == 1000 and (await stage.row(id)).hold


async def test_a_gang_runs_when_all_run(stage: Stage) -> None:
    await stage.box("box")
    id = await gang(stage)
    await stage.look()
    for name, said, shown in (("main1", K.RUNNING, "SCHEDULED"), ("sub1", K.PREPARING, "SCHEDULED"), ("sub2", K.STARTING, "PREPARING"),
                              ("sub1", K.RUNNING, "STARTING"), ("sub2", K.RUNNING, "RUNNING")):
        assert (await stage.say(id, name, said)).state == shown
    row = await stage.row(id)
    assert row.started_at == stage.now and row.deadline is None


async def spread(stage: Stage) -> str:
    parts = (PartInput(role="main"), PartInput(role="sub"))
    return await stage.ask(cluster=parts, cpu=1, mem="1g", wishes=WishesInput(arrange=Arrange.SPREAD))


async def test_a_gang_on_several_agents_is_told_of_its_network(stage: Stage) -> None:
    boxes = [await stage.box(name) for name in ("one", "two")]
    await spread(stage)
    await stage.look()
    told = [order for box in boxes for order in orders(box)]
    assert len(told) == 2 and told[0].net == told[1].net and told[0].net is not None
    assert told[0].net.nodes == {box.id: f"{box.name}.example" for box in boxes}
    assert [peer.address for peer in told[0].peers] == [told[0].net.addresses[peer.host] for peer in told[0].peers]


async def test_a_gang_stays_on_one_agent_where_no_network_can_join_several(stage: Stage) -> None:
    boxes = [await stage.box(name, networks=()) for name in ("one", "two")]
    id = await spread(stage)
    for _ in range(3):
        await stage.look()
    assert sorted(len(orders(box)) for box in boxes) == [0, 2], (await stage.row(id)).hold
    assert all(order.net is None and len(order.peers) == 2 for box in boxes for order in orders(box))


async def test_a_gang_too_large_for_one_agent_says_what_is_missing_for_several(stage: Stage) -> None:
    boxes = [await stage.box(name, cpu=1, networks=()) for name in ("one", "two")]
    id = await spread(stage)
    await stage.look()
    assert "No other node can reach one, two" in (await stage.row(id)).hold
    assert not [order for box in boxes for order in orders(box)]


@pytest.mark.parametrize(("code", "result"), [(0, "success"), (3, "failure")])
async def test_the_end_of_the_main_kernel_is_the_sessions(stage: Stage, code: int, result: str) -> None:
    box = await stage.box("box")
    id = await running(stage)
    row = await stage.say(id, "main1", K.EXITED, exit_code=code)
    assert (row.state, row.result, row.exit_code) == ("TERMINATING", result, code)
    assert [order.hostname for order in orders(box) if order.want is Want.STOP] == ["sub1", "sub2"]
    await stage.say(id, "main1", K.GONE)
    assert await stage.state(id) == "TERMINATING" and await stage.ledger() == {(box.id, "cpu"): 2000, (box.id, "mem"): 2 * GIB}
    for name in ("sub1", "sub2"):
        await stage.say(id, name, K.EXITED, exit_code=143, why="stopped")
        row = await stage.say(id, name, K.GONE)
    assert (row.state, row.result, row.exit_code) == ("TERMINATED", result, code) and await stage.ledger() == {}
    assert row.reason == ("" if code == 0 else "The command ended with 3.")


@pytest.mark.parametrize(("more", "says"), [
    ({"exit_code": 3}, "sub2: The command ended with 3."),
    ({"exit_code": 137, "why": "out-of-memory"}, "sub2: It ran out of memory (1g)"),
    ({"error": "The container was removed."}, "sub2: The container was removed."),
])
async def test_another_kernel_that_fails_ends_the_session_and_is_named(stage: Stage, more: dict[str, Any], says: str) -> None:
    await stage.box("box")
    id = await running(stage)
    row = await stage.say(id, "sub2", K.EXITED, **more)
    assert (row.state, row.result) == ("TERMINATING", "failure") and row.reason.startswith(says)
    for name in ("sub2", "main1", "sub1"):
        row = await stage.say(id, name, K.GONE, exit_code=143, why="stopped")
    assert (row.state, row.result, row.exit_code) == ("FAILED", "failure", None) and row.reason.startswith(says)
    assert await stage.ledger() == {}


async def test_another_kernel_that_ends_well_ends_nothing(stage: Stage) -> None:
    box = await stage.box("box")
    id = await running(stage)
    await stage.say(id, "sub1", K.EXITED, exit_code=0)
    row = await stage.say(id, "sub1", K.GONE)
    assert row.state == "RUNNING" and await stage.ledger() == {(box.id, "cpu"): 2000, (box.id, "mem"): 2 * GIB}
    for name in ("main1", "sub2"):
        row = await stage.say(id, name, K.GONE, exit_code=0)
    assert (row.state, row.result) == ("TERMINATED", "success")


async def two(stage: Stage) -> tuple[Box, Box, str]:
    """Return two agents, and a gang that has one kernel on each."""
    first, second = await stage.box("first", cpu=1), await stage.box("second", cpu=1)
    id = await gang(stage, subs=1, wishes=WishesInput())
    await stage.look()
    assert {box.id for box, _ in stage.kernels(id).values()} == {first.id, second.id}
    return first, second, id


async def test_kernels_on_several_agents_have_a_network_with_addresses(stage: Stage) -> None:
    first, second, _ = await two(stage)
    one, other = orders(first)[0], orders(second)[0]
    assert one.net is not None and one.net == other.net and set(one.net.addresses) == {"main1", "sub1"}
    assert all(peer.address for peer in one.peers) and one.peers == other.peers


async def test_an_agent_that_is_lost_takes_the_session_with_it(stage: Stage) -> None:
    _, _, id = await two(stage)
    for name in ("main1", "sub1"):
        await stage.say(id, name, K.RUNNING)
    lost, _ = stage.kernels(id)["sub1"]
    await lost.leave()
    await stage.later(200.0)
    row = await stage.row(id)
    assert (row.state, row.reason) == ("TERMINATING", f"sub1: The agent {lost.name} was lost.")
    row = await stage.say(id, "main1", K.GONE, exit_code=143, why="stopped")
    assert (row.state, row.result) == ("FAILED", "failure") and await stage.ledger() == {}


async def test_all_are_called_back_and_tried_anew_when_none_has_begun(stage: Stage) -> None:
    first, second, id = await two(stage)
    before = {kernel for _, kernel in stage.kernels(id).values()}
    await stage.later(DEADLINES[S.SCHEDULED] + 1.0)
    assert all(orders(box)[-1].want is Want.STOP for box in (first, second))
    for box in (first, second):
        box.step(orders(box)[-1].kernel)
        await stage.look()
    assert await stage.told(id) == ["PENDING", "SCHEDULED", "PENDING", "SCHEDULED"]
    assert not before & {kernel for _, kernel in stage.kernels(id).values()}


async def test_one_that_has_begun_is_not_begun_again_because_another_is_late(stage: Stage) -> None:
    first, second, id = await two(stage)
    began = next(name for name, (box, _) in stage.kernels(id).items() if box is first)
    late = next(name for name, (box, _) in stage.kernels(id).items() if box is second)
    await stage.say(id, began, K.RUNNING)
    await stage.later(DEADLINES[S.SCHEDULED] + 1.0)
    row = await stage.row(id)
    assert (row.state, row.reason) == ("TERMINATING", f"{late}: Its agent has not begun within 1m, so all were ended.")
    await stage.say(id, began, K.GONE, exit_code=143, why="stopped")
    row = await stage.say(id, late, K.GONE)
    assert row.state == "FAILED" and await stage.ledger() == {}


async def test_a_stop_ends_every_kernel(stage: Stage) -> None:
    box = await stage.box("box")
    id = await running(stage)
    await stage.stop(id)
    await stage.look()
    assert {order.hostname for order in orders(box) if order.want is Want.STOP} == {"main1", "sub1", "sub2"}
    for name in ("sub1", "sub2", "main1"):
        await stage.say(id, name, K.EXITED, exit_code=143, why="stopped")
        assert await stage.state(id) == "TERMINATING"
    for name in ("main1", "sub1", "sub2"):
        row = await stage.say(id, name, K.GONE)
    assert (row.state, row.exit_code, row.reason) == ("TERMINATED", 143, "It was stopped by its owner.")


async def test_a_time_limit_that_another_kernel_reaches_first_is_the_sessions(stage: Stage) -> None:
    await stage.box("box")
    id = await running(stage, time_limit_s=90.0)
    await stage.say(id, "sub1", K.EXITED, exit_code=143, why="time-limit")
    for name in ("main1", "sub2", "sub1"):
        row = await stage.say(id, name, K.GONE, exit_code=143, why="stopped")
    assert (row.state, row.result, row.reason) == ("TERMINATED", "failure", "It reached its time limit of 1m30s.")


async def test_roles_have_their_own_slots_image_and_command(stage: Stage) -> None:
    box = await stage.box("box")
    parts = (PartInput(role="main"), PartInput(role="ps", slots={"cpu": 2, "mem": "2g"}, image="other:1", command=("serve",)))
    await stage.ask(cluster=parts, cpu=1, mem="1g", wishes=WishesInput(one_agent=True))
    await stage.look()
    main, ps = orders(box)
    assert (main.slots, main.image, main.command) == ({"cpu": 1000, "mem": GIB}, None, ("true",))
    assert (ps.slots, ps.image, ps.command, ps.hostname) == ({"cpu": 2000, "mem": 2 * GIB}, "other:1", ("serve",), "ps1")


@pytest.mark.parametrize("parts", [
    (PartInput(role="sub"),), (PartInput(role="main"), PartInput(role="main")), (PartInput(role="main", count=0),),
    (PartInput(role="main"), PartInput(role="x1")), (PartInput(role="main", count=3000),)])
async def test_a_cluster_that_cannot_be_is_refused(stage: Stage, parts: tuple[PartInput, ...]) -> None:
    assert (await refused(lambda: stage.ask(cluster=parts))).code == "invalid-request"
    assert (await refused(lambda: stage.ask(type=SessionType.INTERACTIVE, cluster=(PartInput(role="main", command=("",)),)))).code


async def test_a_gang_that_no_agent_could_hold_alone_is_refused_at_once(stage: Stage) -> None:
    await stage.box("box", cpu=4)
    failure = await refused(lambda: gang(stage, subs=4, cpu=1))
    assert failure.code == "impossible"
    await gang(stage, subs=4, cpu=1, wishes=WishesInput())
