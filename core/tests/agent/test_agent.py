"""A whole agent between a manager on a real port and an engine whose containers outlive it."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import pytest
from backendai.agent import life
from backendai.agent.output import Output
from backendai.agent.serve import serve_agent
from backendai.model.errors import Failure
from backendai.model.session import Mount
from backendai.spec.runtime_v10 import ContainerState
from backendai.wire.link import Desired, KernelOrder, KernelState, Purge, Want


async def read_log(world: Any, order: KernelOrder) -> list[tuple[int, bytes]]:
    output = Output(world.data / "logs" / f"{order.kernel}.log", 1 << 20)
    output.done = True
    return [piece async for piece in output.read(False, None)]


async def test_a_batch_kernel_runs_to_its_end_and_leaves_only_its_log(world: Any) -> None:
    order = world.order(1, "say", "hello", "complain", "oh", "exit", "7")
    async with world.agent() as handle:
        await handle.joined()
        await world.manager.put(order)
        gone = await world.manager.until_state(KernelState.GONE, order)
        assert gone.exit_code == 7 and gone.why == "" and gone.error == ""
        assert gone.started_at and gone.ended_at and gone.started_at <= gone.ended_at
        assert await read_log(world, order) == [(1, b"hello"), (2, b"oh")]
        await world.manager.drop(order.kernel)
        await world.poll(lambda: not world.left() and handle.reconciler.logs() == (order.kernel,))
        await world.manager.send(Purge((order.kernel,)))
        await world.poll(lambda: not handle.reconciler.logs())
    assert handle.reconciler.observed() == ()


async def test_states_are_told_in_order_and_exited_only_with_the_whole_output(world: Any) -> None:
    order = world.order(1, "say", "x" * 1000)
    async with world.agent() as handle:
        await handle.joined()
        await world.manager.put(order)
        await world.manager.until_state(KernelState.RUNNING, order)
        box = world.engine.of(order.kernel)
        box.say(b"last words")
        world.engine.slow["remove"] = asyncio.Event()
        world.engine.end(box, 0)
        await world.manager.until_state(KernelState.EXITED, order)
        assert (await read_log(world, order))[-1][1].endswith(b"last words")
        world.engine.slow["remove"].set()
        await world.manager.until_state(KernelState.GONE, order)
    states = list(dict.fromkeys(seen.state for seen in world.manager.history))
    assert states == sorted(states, key=list(KernelState).index)


async def test_an_idle_kernel_runs_the_static_init_until_it_is_stopped(world: Any) -> None:
    order = world.order(1)
    async with world.agent() as handle:
        await handle.joined()
        await world.manager.put(order)
        await world.manager.until_state(KernelState.RUNNING, order)
        spec = world.engine.of(order.kernel).spec
        assert spec.argv == ("/.bai/init",) and any(mount.target == "/.bai/init" and mount.readonly for mount in spec.mounts)
        assert spec.limits.cpu == 100 and spec.limits.memory == 1 << 20
        await world.manager.stop(order)
        gone = await world.manager.until_state(KernelState.GONE, order)
        assert gone.why == "stopped" and gone.exit_code == 143


async def test_without_a_compiler_idle_kernels_sleep_and_the_agent_says_so(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    async with world.agent() as handle:
        await handle.joined()
        await world.manager.put(world.order(1))
        await world.manager.until_state(KernelState.RUNNING, world.order(1))
        assert world.engine.of(world.order(1).kernel).spec.argv == ("sleep", "infinity")
        assert "gcc" in world.manager.hellos[0].missing["init"]


async def test_an_image_that_is_missing_is_said_in_the_runtimes_words(world: Any) -> None:
    order = world.order(1, "exit", "0", image="missing")
    async with world.agent() as handle:
        await handle.joined()
        await world.manager.put(order)
        gone = await world.manager.until_state(KernelState.GONE, order)
    assert (gone.error, gone.code, gone.exit_code) == ("There is no image missing; see `bai image ls`.", "bad-image", None)
    assert not world.engine.boxes and not list((world.data / "scratch").iterdir())


async def test_what_cannot_start_fails_and_is_removed(world: Any) -> None:
    world.engine.broken["start"] = Failure("runtime-fault", "There is no such program.")
    order = world.order(1, "exit", "0")
    async with world.agent() as handle:
        await handle.joined()
        await world.manager.put(order)
        gone = await world.manager.until_state(KernelState.GONE, order)
    assert gone.error == "There is no such program." and not world.engine.boxes


async def test_a_time_limit_is_kept_across_a_restart(world: Any) -> None:
    order = world.order(1, "forever", time_limit_s=1.0)
    async with world.agent() as handle:
        await handle.joined()
        await world.manager.put(order)
        started = (await world.manager.until_state(KernelState.RUNNING, order)).started_at
    async with world.agent() as handle:
        gone = await world.manager.until_state(KernelState.GONE, order)
    assert gone.why == "time-limit" and gone.started_at <= started and gone.ended_at - started >= 1.0


async def test_out_of_memory_is_why_it_ended(world: Any) -> None:
    order = world.order(1, "forever")
    async with world.agent() as handle:
        await handle.joined()
        await world.manager.put(order)
        await world.manager.until_state(KernelState.RUNNING, order)
        world.engine.end(world.engine.of(order.kernel), 137, out_of_memory=True)
        gone = await world.manager.until_state(KernelState.GONE, order)
    assert (gone.why, gone.exit_code) == ("out-of-memory", 137)


async def test_a_restarted_agent_takes_over_and_the_output_goes_on_without_a_gap(world: Any) -> None:
    order = world.order(1, "say", "one ")
    async with world.agent() as handle:
        await handle.joined()
        await world.manager.put(order)
        await world.manager.until_state(KernelState.RUNNING, order)
        await world.poll(lambda: handle.reconciler.kernels[order.kernel].output.next == 1)
    world.engine.of(order.kernel).say(b"two ")
    async with world.agent() as handle:
        await handle.joined()
        assert world.manager.observed[order.kernel].state is KernelState.RUNNING
        world.engine.of(order.kernel).say(b"three")
        await world.poll(lambda: handle.reconciler.kernels[order.kernel].output.next == 3)
        world.engine.end(world.engine.of(order.kernel), 0)
        await world.manager.until_state(KernelState.GONE, order)
    assert b"".join(data for _, data in await read_log(world, order)) == b"one two three"
    assert world.engine.calls.count("create") == 1


async def test_what_ended_while_no_agent_ran_is_reported_with_its_output(world: Any) -> None:
    order = world.order(1, "forever")
    async with world.agent() as handle:
        await handle.joined()
        await world.manager.put(order)
        await world.manager.until_state(KernelState.RUNNING, order)
    box = world.engine.of(order.kernel)
    box.say(b"bye")
    world.engine.end(box, 3)
    async with world.agent():
        gone = await world.manager.until_state(KernelState.GONE, order)
    assert gone.exit_code == 3 and await read_log(world, order) == [(1, b"bye")]


async def test_a_container_that_vanished_is_lost_and_never_run_again(world: Any) -> None:
    order = world.order(1, "forever")
    async with world.agent() as handle:
        await handle.joined()
        await world.manager.put(order)
        await world.manager.until_state(KernelState.RUNNING, order)
        world.engine.boxes.clear()
        gone = await world.manager.until_state(KernelState.GONE, order)
    assert "no longer has this container" in gone.error and world.engine.calls.count("create") == 1


async def test_what_nobody_wants_goes_but_only_once_the_manager_has_spoken(world: Any) -> None:
    order, other = world.order(1, "forever"), world.order(2, "forever")
    async with world.agent() as handle:
        await handle.joined()
        await world.manager.put(order, other)
        await world.manager.until_state(KernelState.RUNNING, order, other)
    for path in (world.data / "kernels").iterdir():
        path.unlink()  # the journal is lost, as after a disk's death
    world.manager.tells = False
    del world.manager.orders[other.kernel]
    async with world.agent() as handle:
        await handle.joined()
        looks = world.engine.calls.count("list")
        await world.poll(lambda: world.engine.calls.count("list") > looks + 2)
        assert len(world.engine.boxes) == 2
        await world.manager.send(Desired(world.manager.next(), True, (order,)))
        await world.poll(lambda: len(world.engine.boxes) == 1)
        await world.manager.until_state(KernelState.RUNNING, order)
        await world.poll(lambda: [path.name for path in (world.data / "scratch").iterdir()] == [order.kernel])
    assert world.engine.calls.count("create") == 2


async def test_containers_of_another_agent_or_cluster_are_left_alone(world: Any) -> None:
    async with world.agent() as handle:
        await handle.joined()
        await world.manager.put(world.order(1))
        await world.manager.until_state(KernelState.RUNNING, world.order(1))
        labels = dict(world.engine.of(world.order(1).kernel).spec.labels)
        for name, changes in (("other-agent", {"ai.backendai.agent": "x"}), ("other-cluster", {"ai.backendai.cluster": "y"})):
            id = await world.runtime.create(spec_of(world, name, labels | changes))
            assert id
        await world.manager.send(Desired(world.manager.next(), True, (world.order(1),)))
        looks = world.engine.calls.count("list")
        await world.poll(lambda: world.engine.calls.count("list") > looks + 2)
        assert len(world.engine.boxes) == 3


def spec_of(world: Any, name: str, labels: dict[str, str]) -> Any:
    return replace(world.engine.of(world.order(1).kernel).spec, name=name, labels=labels | {"ai.backendai.kernel": name})


async def test_a_lost_link_comes_back_and_everything_is_told_again(world: Any) -> None:
    order, late = world.order(1, "forever"), world.order(2, "exit", "0")
    async with world.agent() as handle:
        await handle.joined()
        await world.manager.put(order)
        await world.manager.until_state(KernelState.RUNNING, order)
        await world.manager.sockets[-1].close()
        world.manager.orders[late.kernel] = late
        await world.manager.until(lambda: len(world.manager.hellos) == 2)
        assert [(seen.kernel, seen.state) for seen in world.manager.hellos[1].kernels] == [(order.kernel, KernelState.RUNNING)]
        await world.manager.until_state(KernelState.GONE, late)
        assert world.manager.observed[order.kernel].state is KernelState.RUNNING


async def test_the_agent_outlives_its_manager(world: Any) -> None:
    manager, order = type(world.manager)(), world.order(1, "forever")
    async with AsyncExitStack() as stack:
        async with world.listening(manager):
            handle = await stack.enter_async_context(serve_agent(replace(world.config(), manager_url=manager.url)))
            await handle.joined()
            await manager.put(order)
            await manager.until_state(KernelState.RUNNING, order)
        await world.poll(lambda: handle.link.why and not handle.link.joined.is_set())
        world.engine.end(world.engine.of(order.kernel), 9)
        await world.poll(lambda: not world.engine.boxes)
        async with world.listening(manager):
            assert (await manager.until_state(KernelState.GONE, order)).exit_code == 9
            assert len(manager.hellos) == 2


async def test_late_and_repeated_words_do_no_harm_and_a_gap_makes_a_new_link(world: Any) -> None:
    order = world.order(1, "forever")
    async with world.agent() as handle:
        await handle.joined()
        await world.manager.put(order)
        await world.manager.until_state(KernelState.RUNNING, order)
        stale = Desired(world.manager.generation, False, (), (order.kernel,))
        await world.manager.send(stale)  # says to drop it, but that generation was already said
        seen = len(world.manager.history)
        await world.manager.put(order)  # said twice: told again, nothing done
        await world.manager.until(lambda: len(world.manager.history) > seen)
        assert world.manager.observed[order.kernel].state is KernelState.RUNNING and len(world.manager.hellos) == 1
        await world.manager.send(Desired(world.manager.generation + 5, False, (), (order.kernel,)))
        await world.manager.until(lambda: len(world.manager.hellos) == 2)
        assert world.manager.observed[order.kernel].state is KernelState.RUNNING
    assert world.engine.calls.count("create") == 1


async def test_a_kernel_may_be_ordered_again_once_its_old_life_is_over(world: Any) -> None:
    order = world.order(1, "forever")
    async with world.agent() as handle:
        await handle.joined()
        await world.manager.put(order)
        await world.manager.until_state(KernelState.RUNNING, order)
        world.engine.of(order.kernel).say(b"old")
        world.engine.slow["remove"] = asyncio.Event()
        await world.manager.drop(order.kernel)
        await world.poll(lambda: "remove" in world.engine.calls)
        await world.manager.put(order)
        world.engine.slow.pop("remove").set()
        await world.poll(lambda: world.engine.calls.count("start") == 2)
        await world.manager.until_state(KernelState.RUNNING, order)
        assert await read_log(world, order) == []


async def test_a_wedged_runtime_makes_the_agent_unhealthy_and_nothing_is_declared_dead(world: Any) -> None:
    order, waiting = world.order(1, "forever"), world.order(2, "exit", "4")
    async with world.agent() as handle:
        await handle.joined()
        await world.manager.put(order)
        await world.manager.until_state(KernelState.RUNNING, order)
        world.engine.wedged = True
        await world.manager.until(lambda: world.manager.beats and world.manager.beats[-1].why)
        assert world.manager.beats[-1].why == "The engine does not answer."
        await world.manager.put(waiting)
        await world.manager.until(lambda: waiting.kernel in world.manager.observed)
        await world.manager.stop(order)
        calls = len(world.engine.calls)
        await world.poll(lambda: len(world.engine.calls) > calls + 5)
        assert world.manager.observed[order.kernel].state is KernelState.RUNNING
        assert not world.manager.observed[waiting.kernel].error
        world.engine.wedged = False
        await world.manager.until(lambda: not world.manager.beats[-1].why)
        assert (await world.manager.until_state(KernelState.GONE, order, waiting)).exit_code == 143
        assert world.manager.observed[waiting.kernel].exit_code == 4


async def test_an_agent_starts_with_a_runtime_that_does_not_answer(world: Any) -> None:
    world.engine.wedged = True
    order = world.order(1, "exit", "0")
    async with world.agent() as handle:
        await handle.joined()
        assert world.manager.hellos[0].why == "The engine does not answer." and world.manager.hellos[0].engine == ""
        await world.manager.put(order)
        await world.manager.until_state(KernelState.ACCEPTED, order)
        world.engine.wedged = False
        await world.manager.until(lambda: world.manager.hellos[-1].engine == "toy 1")
        await world.manager.until_state(KernelState.GONE, order)


async def test_removal_is_tried_until_it_succeeds(world: Any) -> None:
    world.engine.broken["remove"] = Failure("runtime-fault", "The layer is busy.")
    order = world.order(1, "exit", "0")
    async with world.agent() as handle:
        await handle.joined()
        await world.manager.put(order)
        await world.poll(lambda: world.engine.calls.count("remove") >= 3)
        assert world.manager.observed[order.kernel].state is KernelState.EXITED
        world.engine.broken.clear()
        await world.manager.until_state(KernelState.GONE, order)


async def test_a_stop_cuts_a_fetch_short(world: Any) -> None:
    world.engine.slow["ensure_image"] = asyncio.Event()
    order = world.order(1, "exit", "0")
    async with world.agent() as handle:
        await handle.joined()
        await world.manager.put(order)
        await world.manager.until_state(KernelState.PREPARING, order)
        await world.manager.until(lambda: world.manager.advances)
        assert world.manager.advances[0].text == "Fetching, 1m of 4m"
        await world.manager.stop(order)
        gone = await world.manager.until_state(KernelState.GONE, order)
    assert gone.exit_code is None and not gone.error and "create" not in world.engine.calls


async def test_a_fetch_that_takes_too_long_fails(world: Any) -> None:
    world.engine.slow["ensure_image"] = asyncio.Event()
    order = world.order(1, "exit", "0", prepare_s=0.1)
    async with world.agent() as handle:
        await handle.joined()
        await world.manager.put(order)
        gone = await world.manager.until_state(KernelState.GONE, order)
    assert "was not fetched within 0.1 s" in gone.error and gone.code == "deadline"


async def test_a_second_stop_with_less_grace_cuts_the_first_short(world: Any) -> None:
    order = world.order(1, "stubborn", grace_s=3600.0)
    async with world.agent() as handle:
        await handle.joined()
        await world.manager.put(order)
        await world.manager.until_state(KernelState.RUNNING, order)
        await world.manager.stop(order)
        await world.poll(lambda: world.engine.graces == [3600.0])
        await world.manager.stop(order, grace_s=0.0)
        gone = await world.manager.until_state(KernelState.GONE, order)
    assert gone.exit_code == 137 and world.engine.graces == [3600.0, 0.0]


async def test_starts_are_bounded_by_what_the_runtime_can(world: Any) -> None:
    orders = [world.order(n, "exit", "0") for n in range(1, 31)]
    async with world.agent() as handle:
        await handle.joined()
        await world.manager.put(*orders)
        await world.manager.until_state(KernelState.GONE, *orders)
        assert not world.engine.boxes
    assert 1 < world.engine.most_at_once <= 3


async def test_a_slot_that_is_not_there_fails_at_once(world: Any) -> None:
    order = world.order(1, "exit", "0", slots={"cuda.device": 1000})
    async with world.agent() as handle:
        await handle.joined()
        await world.manager.put(order)
        gone = await world.manager.until_state(KernelState.GONE, order)
    assert gone.code == "impossible"


async def test_usage_travels_with_the_beat(world: Any) -> None:
    order = world.order(1, "forever")
    async with world.agent() as handle:
        await handle.joined()
        await world.manager.put(order)
        await world.manager.until(lambda: world.manager.beats and order.kernel in world.manager.beats[-1].usage)
    usage, node = world.manager.beats[-1].usage[order.kernel], world.manager.beats[-1].node
    assert (usage.cpu_s, usage.memory) == (1.5, 4096) and node.memory > 0 and world.manager.beats[-1].capacity["cpu"] > 0


async def test_a_refused_agent_says_why_and_tries_again(world: Any) -> None:
    good = world.config()
    async with serve_agent(replace(good, token="wrong")) as handle:
        with pytest.raises(Failure, match="401"):
            await handle.joined(0.3)
    async with world.agent() as handle:
        await handle.joined()
        assert handle.name == good.name


async def test_a_manager_that_closes_the_link_is_quoted(world: Any) -> None:
    world.manager.refuses = "the name box is taken"
    async with world.agent() as handle:
        with pytest.raises(Failure, match="the name box is taken"):
            await handle.joined(0.3)
        world.manager.refuses = ""
        await handle.joined()


async def test_a_mount_whose_file_server_is_dead_fails_only_its_own_session(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(life, "MOUNTS_S", 0.2)
    monkeypatch.setattr(life, "_resolve", lambda path: str(release.wait(20)))
    order, other = world.order(1, "exit", "0", mounts=(Mount("/mnt/dead", "/mnt/x"),)), world.order(2, "exit", "0")
    try:
        async with world.agent(mount_roots=("/mnt",)) as handle:
            await handle.joined()
            await world.manager.put(order, other)
            gone = await world.manager.until_state(KernelState.GONE, order, other)
            assert gone.code == "bad-mount" and "does not answer" in gone.error and world.manager.observed[other.kernel].exit_code == 0
    finally:
        release.set()


async def test_two_agents_cannot_share_a_folder(world: Any) -> None:
    async with world.agent():
        with pytest.raises(Failure, match="Another agent works"):
            async with world.agent():
                pass


async def test_an_agent_keeps_its_id_and_refuses_another_cluster_while_it_holds_kernels(world: Any) -> None:
    async with world.agent() as handle:
        await handle.joined()
        await world.manager.put(world.order(1))
        await world.manager.until_state(KernelState.RUNNING, world.order(1))
        world.manager.cluster = "another"
        await world.manager.sockets[-1].close()
        await world.poll(lambda: "of the cluster" in handle.link.why)
        assert world.engine.of(world.order(1).kernel).container.state is ContainerState.RUNNING
    assert {hello.agent for hello in world.manager.hellos} == {handle.id}


async def test_an_order_to_stop_what_never_ran_is_answered_with_gone(world: Any) -> None:
    order = world.order(1, "exit", "0", want=Want.STOP)
    async with world.agent() as handle:
        await handle.joined()
        await world.manager.put(order)
        gone = await world.manager.until_state(KernelState.GONE, order)
    assert gone.started_at is None and gone.ended_at <= time.time() and "create" not in world.engine.calls
