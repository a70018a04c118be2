"""Agents: the nodes that lend their slots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Row, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from backendai.manager.access import Caller
from backendai.manager.context import Context
from backendai.manager.operations.registry import Input, Nothing, Page, declare
from backendai.manager.store.schema import agent_slots, agents, kernels
from backendai.model.errors import Failure
from backendai.model.slots import plain_slots
from backendai.model.views import Agent


class AgentInfo(msgspec.Struct, frozen=True):
    """What an agent told of itself once, as the table's ``info`` holds it."""

    features: tuple[str, ...] = ()
    missing: Mapping[str, str] = {}
    limits: Mapping[str, str] = {}
    default_image: str = ""
    plugins: tuple[Mapping[str, str], ...] = ()


class OneAgent(Input, frozen=True):
    """id: an agent's id or name."""

    id: str


async def list_(context: Context, caller: Caller, input: Nothing) -> Page[Agent]:
    """List the agents, by name."""
    return Page(await find_agents(context))


async def get(context: Context, caller: Caller, input: OneAgent) -> Agent:
    """Show an agent, by id or name."""
    found = await find_agents(context, input.id)
    if not found:
        raise Failure("not-found", f"There is no agent {input.id!r}; see `bai agents`.")
    return found[0]


async def find_agents(context: Context, id_or_name: str | None = None) -> tuple[Agent, ...]:
    """Return every agent by name, or the one that is meant."""
    query = select(agents).order_by(agents.c.name)
    if id_or_name is not None:
        query = query.where(or_(agents.c.id == id_or_name, agents.c.name == id_or_name))
    held = select(kernels.c.agent_id, func.count().label("count")).where(kernels.c.holds).group_by(kernels.c.agent_id)

    async def job(connection: AsyncConnection) -> tuple[Sequence[Row[Any]], Sequence[Row[Any]], dict[str, int]]:
        return ((await connection.execute(query)).all(), (await connection.execute(select(agent_slots))).all(),
                {row.agent_id: row.count for row in await connection.execute(held)})  # type: ignore[misc]  # a label named as a method

    rows, slots, counts = await context.store.read(job)
    return tuple(_to_agent(row, [s for s in slots if s.agent_id == row.id], counts.get(row.id, 0)) for row in rows)


def _to_agent(row: Row[Any], slots: Sequence[Row[Any]], held: int) -> Agent:
    info = msgspec.json.decode(row.info, type=AgentInfo)
    return Agent(
        id=row.id, name=row.name, connected=row.connected, healthy=row.connected and not row.why, why=row.why, version=row.version,
        arch=row.arch, runtime=row.runtime, engine=row.engine, default_image=info.default_image, features=info.features,
        missing=info.missing, limits=info.limits, capacity=plain_slots({s.slot: s.capacity for s in slots}),
        used=plain_slots({s.slot: s.used for s in slots}), free=plain_slots({s.slot: max(0, s.capacity - s.used) for s in slots}),
        kernels=held, last_seen=row.last_seen, created_at=row.created_at)


OPERATIONS = (
    declare("agents.list", list_, "GET", "/v1/agents"),
    declare("agents.get", get, "GET", "/v1/agents/{id}"),
)
