"""Agents: the nodes that lend their slots, and what their operator wants of them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Row, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from backendai.manager.access import Caller, Thing, Verb, require
from backendai.manager.context import Context
from backendai.manager.operations.groups import find_group
from backendai.manager.operations.registry import Input, Nothing, Page, declare
from backendai.manager.store.engine import Tx
from backendai.manager.store.nodes import merge_labels
from backendai.manager.store.schema import agent_slots, agents, groups, kernels
from backendai.model.errors import Failure
from backendai.model.slots import plain_slots
from backendai.model.views import Agent

_LABEL = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._/-]{0,62}")
_VALUE = re.compile(r"[a-zA-Z0-9._/-]{0,63}")


class AgentInfo(msgspec.Struct, frozen=True):
    """What an agent told of itself once, as the table's ``info`` holds it."""

    features: tuple[str, ...] = ()
    missing: Mapping[str, str] = {}
    limits: Mapping[str, str] = {}
    default_image: str = ""
    plugins: tuple[Mapping[str, str], ...] = ()
    labels: Mapping[str, str] = {}


class ChangeAgent(Input, frozen=True):
    """id: an agent's id or name. What is left out stays. group: by name. cordoned: nothing new is placed on it.

    draining: and what may move is moved, the rest runs to its end; it is cordoned, too. labels: to set by name; null takes one away.
    """

    id: str
    group: str | None = None
    cordoned: bool | None = None
    draining: bool | None = None
    labels: Mapping[str, str | None] | None = None


class OneAgent(Input, frozen=True):
    """id: an agent's id or name."""

    id: str


async def list_(context: Context, caller: Caller, input: Nothing) -> Page[Agent]:
    """List the agents, by name."""
    require(caller, Verb.READ, Thing("agent"))
    return Page(await find_agents(context))


async def get(context: Context, caller: Caller, input: OneAgent) -> Agent:
    """Show an agent, by id or name."""
    require(caller, Verb.READ, Thing("agent"))
    found = await find_agents(context, input.id)
    if not found:
        raise Failure("not-found", f"There is no agent {input.id!r}; see `bai agents`.")
    return found[0]


async def change(context: Context, caller: Caller, input: ChangeAgent) -> Agent:
    """Move an agent to another group, cordon or drain it, or label it. What runs on it goes on."""
    require(caller, Verb.CHANGE, Thing("agent"))
    agent = await get(context, caller, OneAgent(id=input.id))
    values: dict[str, Any] = {}
    if input.group is not None:
        values["group_id"] = (await find_group(context, input.group)).id
    cordoned, draining = input.cordoned, input.draining
    if cordoned is not None or draining is not None:
        if draining is None:
            draining = agent.draining and cordoned is not False  # an agent that takes sessions again is not drained either
        values |= {"draining": draining, "cordoned": draining or (agent.cordoned if cordoned is None else cordoned)}
    labels = {} if input.labels is None else input.labels
    for name, value in labels.items():
        if _LABEL.fullmatch(name) is None or (value is not None and _VALUE.fullmatch(value) is None):
            raise Failure("invalid-request", f"labels: {name}={value} is none; use letters, digits and '._/-', at most 63 for each.")

    async def job(tx: Tx) -> None:
        row = (await tx.connection.execute(select(agents.c.info, agents.c.overrides).where(agents.c.id == agent.id))).first()
        if row is None:
            raise Failure("not-found", f"The agent {agent.name} has just gone; see `bai agents`.")
        over = msgspec.json.decode(row.overrides) | dict(labels)
        own = msgspec.json.decode(row.info, type=AgentInfo).labels
        over = {name: value for name, value in over.items() if value is not None or name in own}
        values["overrides"] = msgspec.json.encode(over).decode()
        values["labels"] = msgspec.json.encode(merge_labels(own, over)).decode()
        await tx.connection.execute(update(agents).where(agents.c.id == agent.id).values(values))
        tx.event("agent.changed", agent.id, None, {"by": caller.user.name, "name": agent.name, "changed": sorted(values)})
        tx.after(context.capacities.forget)
        tx.after(context.bus.wake)

    await context.store.write(job)
    return await get(context, caller, OneAgent(id=agent.id))


async def find_agents(context: Context, id_or_name: str | None = None) -> tuple[Agent, ...]:
    """Return every agent by name, or the one that is meant."""
    query = (select(agents, groups.c.name.label("group")).select_from(agents.outerjoin(groups, agents.c.group_id == groups.c.id))
             .order_by(agents.c.name))
    if id_or_name is not None:
        query = query.where(or_(agents.c.id == id_or_name, agents.c.name == id_or_name))
    held = select(kernels.c.agent_id, func.count().label("count")).where(kernels.c.holds).group_by(kernels.c.agent_id)

    async def job(connection: AsyncConnection) -> tuple[Sequence[Row[Any]], Sequence[Row[Any]], dict[str, int]]:
        return ((await connection.execute(query)).all(), (await connection.execute(select(agent_slots))).all(),
                {row.agent_id: row.count for row in await connection.execute(held)})  # type: ignore[misc]  # a label named as a method

    rows, slots, counts = await context.store.read(job)
    lent: defaultdict[str, list[Row[Any]]] = defaultdict(list)
    for slot in slots:
        lent[slot.agent_id].append(slot)
    return tuple(_to_agent(row, lent[row.id], counts.get(row.id, 0)) for row in rows)


def _to_agent(row: Row[Any], slots: Sequence[Row[Any]], held: int) -> Agent:
    info = msgspec.json.decode(row.info, type=AgentInfo)
    return Agent(
        id=row.id, name=row.name, connected=row.connected, healthy=row.connected and not row.why, why=row.why, version=row.version,
        arch=row.arch, runtime=row.runtime, engine=row.engine, default_image=info.default_image, features=info.features,
        missing=info.missing, limits=info.limits, capacity=plain_slots({s.slot: s.capacity for s in slots}),
        used=plain_slots({s.slot: s.used for s in slots}), free=plain_slots({s.slot: max(0, s.capacity - s.used) for s in slots}),
        kernels=held, last_seen=row.last_seen, created_at=row.created_at, group=row.group or "", cordoned=row.cordoned,
        draining=row.draining, labels=msgspec.json.decode(row.labels))


OPERATIONS = (
    declare("agents.list", list_, "GET", "/v1/agents"),
    declare("agents.get", get, "GET", "/v1/agents/{id}"),
    declare("agents.update", change, "PATCH", "/v1/agents/{id}", mutates=True),
)
