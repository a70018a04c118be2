"""What containers have used."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from aiodocker import DockerError
from backendai.spec.runtime_v10 import Usage

from backendai_runtime_docker.engine import NO_WORD, Engine, refused, together

ASK_S = 15.0
AT_ONCE = 16
NANO = 1e9
ONCE = {"stream": False, "one-shot": True}


async def measure(engine: Engine, ids: Sequence[str]) -> Mapping[str, Usage]:
    """Return the use of each running container of *ids*."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(id: str) -> Usage | None:
        async with turns:
            try:
                return to_usage(await engine.get(f"containers/{id}/stats", params=ONCE, within_s=ASK_S) or {})
            except DockerError as error:
                if error.status in (404, 409, NO_WORD):
                    return None
                raise refused(error, "measure the container") from error

    found = await together(map(one, ids))
    return {id: usage for id, usage in zip(ids, found, strict=True) if usage is not None}


def to_usage(answer: Mapping[str, Any]) -> Usage | None:
    """Return the engine's figures in the contract's units; None for a container that does not run."""
    cpu, memory, pids = (answer.get(part) or {} for part in ("cpu_stats", "memory_stats", "pids_stats"))
    if not pids.get("current"):
        return None
    details = memory.get("stats") or {}
    cache = details.get("total_inactive_file", details.get("inactive_file", 0))  # cgroup v1, v2: given back when someone needs it
    blocks = (answer.get("blkio_stats") or {}).get("io_service_bytes_recursive")
    networks = (answer.get("networks") or {}).values()
    return Usage(
        cpu_s=(cpu.get("cpu_usage") or {}).get("total_usage", 0) / NANO,
        memory=max(0, memory["usage"] - cache) if "usage" in memory else None, memory_peak=memory.get("max_usage"),
        pids=int(pids["current"]), io_read=_moved(blocks, "read"), io_write=_moved(blocks, "write"),
        net_rx=sum(network["rx_bytes"] for network in networks), net_tx=sum(network["tx_bytes"] for network in networks))


def _moved(blocks: Sequence[Mapping[str, Any]] | None, way: str) -> int | None:
    return None if blocks is None else sum(int(block["value"]) for block in blocks if str(block["op"]).lower() == way)
