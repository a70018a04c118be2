"""What may be wrong with a running platform, found by comparing: ledgers with what is held, the database with what agents have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from backendai.manager.store.admission import format_quota, name_lines
from backendai.manager.store.groups import Group, read_groups
from backendai.manager.store.quotas import find_takers, read_quotas, recount
from backendai.manager.store.schema import agent_slots, agents, kernels, sessions
from backendai.model.session import SessionState
from backendai.model.slots import format_slots
from backendai.model.units import format_seconds
from backendai.model.views import Finding
from backendai.wire.link import KernelState

LATE_S = 120.0  # how long the orchestrator may need for what it does within seconds
_ENDED = (KernelState.EXITED.value, KernelState.GONE.value)
_slots_decoder = msgspec.json.Decoder(dict[str, int])


@dataclass(frozen=True, slots=True)
class Held:
    """A kernel that the database says is on an agent. session: by name. state: what its agent said last, empty before it said anything."""

    id: str
    session: str
    agent: str
    state: str


@dataclass(frozen=True, slots=True)
class Books:
    """What the database says at one moment. names: of agents by id."""

    held: Mapping[str, Held]
    names: Mapping[str, str]
    findings: tuple[Finding, ...]


async def read_books(connection: AsyncConnection, now: float) -> Books:
    """Read what is held, and everything that the database contradicts itself in."""
    query = (select(kernels.c.id, kernels.c.agent_id, kernels.c.state, kernels.c.slots, sessions.c.name)
             .select_from(kernels.join(sessions, kernels.c.session_id == sessions.c.id)).where(kernels.c.holds.is_(True)))
    rows = (await connection.execute(query)).all()
    nodes = (await connection.execute(select(agents))).all()
    names = {row.id: row.name for row in nodes}
    found = [*await _ledger(connection, rows, names), *await _quotas(connection), *await _sessions(connection, now),
             *_agents(nodes, await read_groups(connection), now)]
    held = {row.id: Held(row.id, row.name, str(row.agent_id), row.state) for row in rows}
    return Books(held, names, tuple(found))


async def _ledger(connection: AsyncConnection, rows: Sequence[Any], names: Mapping[str, str]) -> list[Finding]:
    sums: Counter[tuple[str, str]] = Counter()
    for row in rows:
        for slot, amount in _slots_decoder.decode(row.slots).items():
            sums[str(row.agent_id), slot] += amount
    found = []
    for line in (await connection.execute(select(agent_slots))).all():
        held, name = sums.get((line.agent_id, line.slot), 0), names.get(line.agent_id, line.agent_id)
        if line.used != held:
            wrong, right = (format_slots({line.slot: amount}) for amount in (line.used, held))
            found.append(Finding(f"agent {name}", f"Its ledger says that {wrong} is used, and {right} is held.",
                                 "--mend makes the ledger equal to what is held."))
        if held > line.capacity:
            more = format_slots({line.slot: held - line.capacity})
            found.append(Finding(f"agent {name}", f"It has shrunk: {more} more is held than it has.",
                                 "Nothing new is placed there; stop sessions, or wait for their end.", grave=False))
    return found


async def _quotas(connection: AsyncConnection) -> list[Finding]:
    lines = await read_quotas(connection)
    used, names = recount(lines, await find_takers(connection)), await name_lines(connection, lines)
    return [Finding(f"quota of {names[line.id][0]}", f"It says that {format_quota(line.what, line.used)} {line.what} is used, and "
                    f"{format_quota(line.what, used.get(line.id, 0))} is held.", "--mend counts it anew.")
            for line in lines if line.used != used.get(line.id, 0)]


async def _sessions(connection: AsyncConnection, now: float) -> list[Finding]:
    late = select(sessions.c.name, sessions.c.state, sessions.c.deadline).where(sessions.c.deadline < now - LATE_S)
    found = [Finding(f"session {row.name}", f"It is {row.state} for {format_seconds(now - row.deadline)} longer than it may.",
                     "The orchestrator acts within seconds; look at /readyz and the manager's log.")
             for row in await connection.execute(late)]
    silent = select(func.count()).select_from(sessions).where(
        sessions.c.state == SessionState.PENDING.value, sessions.c.hold == "", sessions.c.stop.is_(False),
        sessions.c.state_since < now - LATE_S)
    if count := (await connection.execute(silent)).scalar():
        found.append(Finding("queue", f"{count} sessions wait and nobody has said why.",
                             "Their group's planner does not get to them; look at `bai plugin ls` and the manager's log."))
    return found


def _agents(nodes: Sequence[Any], groups: Collection[Group], now: float) -> Iterator[Finding]:
    known = {group.id for group in groups}
    for row in nodes:
        if row.group_id not in known:
            yield Finding(f"agent {row.name}", "The resource group that it belongs to is gone.",
                          f"Move it: bai agent set {row.name} --group default.")
        if not row.connected:
            yield Finding(f"agent {row.name}", f"It has been away for {format_seconds(max(0.0, now - row.last_seen))}.",
                          "Start it, or look at its log and at the network.", grave=False)
        elif row.why:
            yield Finding(f"agent {row.name}", f"It is not well: {row.why}", "Look at its runtime; new sessions go elsewhere.", grave=False)


def compare(agent: str, name: str, before: Books, after: Books, answer: Mapping[str, Any]) -> Iterator[Finding]:
    """Hold what an agent answered against the database before and after it did; what is in flux counts as right.

    answer: ``kernels`` (its journal) and ``containers`` (its runtime), as ``Verb.STATE`` has them.
    """
    journal = {one["kernel"]: one for one in answer.get("kernels", ())}
    boxes = {one["kernel"]: one for one in answer.get("containers", ()) if one.get("kernel")}
    again = "--mend has the agent connect anew: it tells what it has, and is told what it should have."
    for id, held in before.held.items():
        still = after.held.get(id)
        if held.agent != agent or still is None or still.agent != agent or not held.state:
            continue
        if id not in journal:
            yield Finding(f"agent {name}", f"The session {held.session} should have a kernel there that it knows nothing of.", again)
        elif (held.state == still.state == journal[id]["state"] == KernelState.RUNNING.value
              and boxes.get(id, {}).get("state") != "running"):
            said = f"The container of the session {held.session} should run, and its runtime has none that does."
            yield Finding(f"agent {name}", said, again)
    for id, one in journal.items():
        if id not in before.held and id not in after.held and not one["dropped"] and one["state"] not in _ENDED:
            yield Finding(f"agent {name}", f"It has the kernel {id}, which nobody wants there.", again)
    for id, one in boxes.items():
        if id not in journal and id not in before.held and id not in after.held:
            said = f"The container {one['name'] or one['id'][:12]} bears its label and belongs to no kernel that it has."
            yield Finding(f"agent {name}", said, again)
