"""The agent on the kit's runtime that does nothing, found like any stranger's plugin."""

from __future__ import annotations

from typing import Any

import pytest
from backendai.plugin import discovery, host
from backendai.wire.link import KernelState


async def test_the_null_runtime_carries_a_kernel_through_its_life(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("backendai.testing.null_runtime", reason="the kit is not installed with its null runtime")
    monkeypatch.setattr(host, "find", discovery.find)
    order = world.order(1)
    async with world.agent(runtime="null") as handle:
        await handle.joined()
        assert handle.runtime == world.manager.hellos[0].runtime == "null"
        await world.manager.put(order)
        await world.manager.until_state(KernelState.RUNNING, order)
        await world.manager.stop(order)
        gone = await world.manager.until_state(KernelState.GONE, order)
        assert gone.why == "stopped" and not gone.error
        await world.manager.drop(order.kernel)
        await world.poll(lambda: not world.left())
