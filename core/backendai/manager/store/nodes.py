"""Agents' rows: who joined, who is here, who is well."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import msgspec
from sqlalchemy import delete, insert, select, update

from backendai.manager.store.engine import Tx
from backendai.manager.store.schema import agent_slots, agents, kernels, slot_types, tokens
from backendai.model.errors import Failure
from backendai.model.slots import SlotDecl
from backendai.wire.link import Hello

_DECIDED = (agents.c.group_id, agents.c.cordoned, agents.c.draining, agents.c.overrides)  # by the operator, about the machine


async def join(tx: Tx, hello: Hello, connected: Collection[str], now: float) -> str | None:
    """Write down who said hello. Return the id of an absent agent whose name it takes over, if any.

    With the name it takes over what the operator decided about it: a machine that is set up anew stays in its group, and cordoned.
    connected: ids of the agents that are here; the name of one of them is refused with ``Failure('name-taken')``.
    """
    before = (await tx.connection.execute(
        select(agents.c.id, *_DECIDED).where(agents.c.name == hello.name, agents.c.id != hello.agent))).first()
    namesake: str | None = None if before is None else before.id
    if namesake is not None:
        if namesake in connected:
            said = f"Another agent named {hello.name} is connected; start this one with another --name."
            raise Failure("name-taken", said)
        await tx.connection.execute(update(agents).where(agents.c.id == namesake).values(name=namesake))
    info = {"features": hello.features, "missing": hello.missing, "limits": hello.limits, "default_image": hello.default_image,
            "plugins": hello.plugins, "labels": hello.labels, "networks": hello.networks}
    known = (await tx.connection.execute(select(agents.c.id, *_DECIDED).where(agents.c.id == hello.agent))).first()
    kept = known or before
    labels = merge_labels(hello.labels, msgspec.json.decode(kept.overrides if kept is not None else "{}"))
    row = {"name": hello.name, "version": hello.version[:32], "arch": hello.arch[:16], "runtime": hello.runtime[:64],
           "engine": hello.engine[:128], "info": _text(info), "connected": True, "why": hello.why, "last_seen": now,
           "labels": _text(labels), "address": hello.address[:64], "devices": _text(hello.devices)}
    if known is not None:
        await tx.connection.execute(update(agents).where(agents.c.id == hello.agent).values(row))
    else:
        decided = {} if before is None else {column.name: getattr(before, column.name) for column in _DECIDED}
        await tx.connection.execute(insert(agents), [{**row, **decided, "id": hello.agent, "created_at": now}])
    await set_capacity(tx, hello.agent, hello.capacity)
    await declare_slots(tx, hello.slots)
    tx.event("agent.connected", hello.agent, None, {"name": hello.name, "why": hello.why})
    return namesake


def merge_labels(own: Mapping[str, str], over: Mapping[str, str | None]) -> dict[str, str]:
    """Return an agent's labels: its own, and what its operator wants instead; None hides one."""
    return {name: value for name, value in {**own, **over}.items() if value is not None}


async def declare_slots(tx: Tx, declared: Iterable[SlotDecl]) -> None:
    """Write down what slots are like; the newest word counts."""
    if not declared:
        return
    known = {row.name: tuple(row)[1:] for row in await tx.connection.execute(select(slot_types))}
    for slot in declared:
        row = {"kind": slot.kind.value, "quantum": slot.quantum, "unit": slot.unit[:32], "title": slot.title[:64]}
        if slot.name not in known:
            await tx.connection.execute(insert(slot_types), [{"name": slot.name[:64], **row}])
        elif known[slot.name] != tuple(row.values()):
            await tx.connection.execute(update(slot_types).where(slot_types.c.name == slot.name).values(row))


def _text(value: object) -> str:
    return msgspec.json.encode(value).decode()


async def bind(tx: Tx, token_id: str, hello: Hello, namesake: str | None) -> None:
    """Let the first agent that uses a token have it. Raise ``Failure`` when it is another's, or would let its agent take another's name.

    namesake: the absent agent whose name is being taken over; one whose machine was set up anew may do that with its old token.
    """
    row = (await tx.connection.execute(select(tokens.c.agent_id).where(tokens.c.id == token_id))).first()
    if row is None:
        raise Failure("unauthenticated", "This agent's token was revoked; make one with `bai token create --agent NAME`.")
    if row.agent_id not in (None, hello.agent, namesake):
        said = f"This token belongs to another agent; make one for this machine with `bai token create --agent {hello.name}`."
        raise Failure("forbidden", said)
    if row.agent_id == hello.agent and namesake is not None:
        raise Failure("name-taken", f"The name {hello.name} belongs to another agent; start this one with another --name.")
    if row.agent_id != hello.agent:
        await tx.connection.execute(update(tokens).where(tokens.c.id == token_id).values(agent_id=hello.agent))


async def forget(tx: Tx, agent_id: str) -> None:
    """Remove an agent that holds nothing any more."""
    await tx.connection.execute(delete(agents).where(agents.c.id == agent_id))


async def set_capacity(tx: Tx, agent_id: str, capacity: Mapping[str, int]) -> None:
    """Write what an agent has; what is used stays as it is. A slot that went away stays with 0 while it is used."""
    rows = (await tx.connection.execute(select(agent_slots).where(agent_slots.c.agent_id == agent_id))).all()
    known = {row.slot: row for row in rows}
    for name, row in known.items():
        mine = (agent_slots.c.agent_id == agent_id) & (agent_slots.c.slot == name)
        if name not in capacity and not row.used:
            await tx.connection.execute(delete(agent_slots).where(mine))
        elif row.capacity != capacity.get(name, 0):
            await tx.connection.execute(update(agent_slots).where(mine).values(capacity=capacity.get(name, 0)))
    if fresh := [{"agent_id": agent_id, "slot": name, "capacity": amount, "used": 0}
                 for name, amount in capacity.items() if name not in known]:
        await tx.connection.execute(insert(agent_slots), fresh)


async def leave(tx: Tx, agent_id: str, now: float) -> None:
    """Write down that an agent's link has ended."""
    row = (await tx.connection.execute(select(agents.c.name).where(agents.c.id == agent_id, agents.c.connected.is_(True)))).first()
    if row is not None:
        await tx.connection.execute(update(agents).where(agents.c.id == agent_id).values(connected=False, last_seen=now))
        tx.event("agent.disconnected", agent_id, None, {"name": row.name})


async def note(tx: Tx, agent_id: str, why: str, capacity: Mapping[str, int] | None, now: float,
               devices: Mapping[str, Mapping[str, int]] | None = None) -> None:
    """Write down an agent's sign of life. capacity, devices: None when they did not change."""
    row = (await tx.connection.execute(select(agents.c.name, agents.c.why).where(agents.c.id == agent_id))).first()
    if row is None:
        return
    await tx.connection.execute(update(agents).where(agents.c.id == agent_id).values(why=why, last_seen=now))
    if capacity is not None:
        await set_capacity(tx, agent_id, capacity)
    if devices is not None:
        await tx.connection.execute(update(agents).where(agents.c.id == agent_id).values(devices=_text(devices)))
    if row.why != why:
        tx.event("agent.unhealthy" if why else "agent.healthy", agent_id, None, {"name": row.name, "why": why})


async def absent_at_start(tx: Tx, connected: Collection[str]) -> None:
    """Mark as absent whoever an earlier manager left as connected and is not here."""
    await tx.connection.execute(update(agents).where(agents.c.connected.is_(True), agents.c.id.not_in(connected)).values(connected=False))


async def unknown_logs(tx: Tx, logs: Collection[str]) -> tuple[str, ...]:
    """Return those of *logs* (kernels) that belong to no session any more."""
    wanted, known = list(logs), set()
    for at in range(0, len(wanted), 500):
        known |= {row[0] for row in await tx.connection.execute(select(kernels.c.id).where(kernels.c.id.in_(wanted[at:at + 500])))}
    return tuple(log for log in wanted if log not in known)
