"""The platform explains itself: why, when, in which order, what was decided, and how everything stands."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from backendai.manager.access import Caller, Thing, Verb, require
from backendai.manager.context import Context
from backendai.manager.explaining import explain_request, explain_session, show_decision
from backendai.manager.mirror import request_of
from backendai.manager.operations.agents import find_agents
from backendai.manager.operations.asking import CreateSession
from backendai.manager.operations.enqueue import held_of, prepare
from backendai.manager.operations.groups import show_groups
from backendai.manager.operations.registry import Input, Page, declare
from backendai.manager.queueing import busy_of, queue_of
from backendai.manager.store import decisions as record
from backendai.manager.store.schema import sessions
from backendai.manager.store.sessions import FINAL_STATES, find_session
from backendai.model.errors import Failure
from backendai.model.explain import Decision, Line, Overview, Queue, Why
from backendai.model.views import Agent, Group

MOST = 1000  # sessions or decisions in one answer
SHOWN = 200


class WhySession(Input, frozen=True):
    """id: a session's id or name. replay: make the decision that placed it again, from the moment that was kept."""

    id: str
    replay: bool = False


class DryRun(CreateSession, frozen=True):
    """As for create."""


class GetQueue(Input, frozen=True):
    """group: by name; every one that you may use when left out. session: this one alone. limit: sessions of each group, at most 1000."""

    group: str | None = None
    session: str | None = None
    limit: int = SHOWN


class ListDecisions(Input, frozen=True):
    """group: by name. session: only those that placed it, by id. before: older than the decision with this id. limit: at most 1000."""

    group: str | None = None
    session: str | None = None
    before: int | None = None
    limit: int = 50


class GetOverview(Input, frozen=True):
    """limit: agents, sessions that run, and sessions that wait in each group, at most 1000."""

    limit: int = SHOWN


async def why(context: Context, caller: Caller, input: WhySession) -> Why:
    """Say why a session waits, what blocks it, what would let it start now and when it will; of others, why they are where they are."""
    return await explain_session(context, caller, await find_session(context, caller, input.id), input.replay)


async def dry_run(context: Context, caller: Caller, input: DryRun) -> Why:
    """Say what would become of a session that you ask for, and ask for nothing. What create would refuse is refused."""
    prepared = await prepare(context, caller, input)
    spec, terms = prepared.spec, prepared.terms

    async def check(connection: AsyncConnection) -> None:
        await terms.admit(context, connection, spec, len(prepared.specs))
        taken = select(sessions.c.name).where(sessions.c.owner_id == caller.id, sessions.c.state.not_in(FINAL_STATES),
                                              sessions.c.name.in_([each.name for each in prepared.specs]))
        if input.name is not None and (name := (await connection.execute(taken.limit(1))).scalar()) is not None:
            raise Failure("name-taken", f"You have an active session named {name!r}; stop it or choose another name.")

    await context.store.read(check)
    held = held_of(prepared, context.new_id(), caller.id, context.clock())
    waits = (spec.not_before is not None and spec.not_before > context.clock()) or bool(spec.after)
    return await explain_request(context, caller, request_of(held), terms.group, spec, bool(waits))


async def queue(context: Context, caller: Caller, input: GetQueue) -> Page[Queue]:
    """Show who waits in each group, in the order in which they go, and when they will start. Others' sessions are counted only."""
    _check(input.limit)
    only = None
    groups = await show_groups(context, caller, input.group)
    if input.session is not None:
        row = await find_session(context, caller, input.session)
        only, groups = row.id, tuple(group for group in await show_groups(context, caller) if group.id == row.group_id)
    return Page(tuple([await queue_of(context, caller, group.id, group.name, input.limit, only) for group in groups]))


async def decisions(context: Context, caller: Caller, input: ListDecisions) -> Page[Decision]:
    """List what was decided, newest first: from which moment, by which plugins, and who was placed where."""
    require(caller, Verb.READ, Thing("decision"))
    _check(input.limit)
    group = None if input.group is None else (await show_groups(context, caller, input.group))[0].id
    rows = await context.store.read(
        lambda connection: record.newest(connection, group, input.session, input.before, input.limit + 1))
    items = tuple(show_decision(row) for row in rows[: input.limit])
    return Page(items, str(items[-1].id) if len(rows) > input.limit else None)


async def overview(context: Context, caller: Caller, input: GetOverview) -> Overview:
    """Show how everything stands: groups, agents, who runs with what they use, and who waits."""
    _check(input.limit)
    groups = await show_groups(context, caller)
    nodes = [agent for agent in await find_agents(context) if agent.group in {group.name for group in groups}]
    busy, hidden = await busy_of(context, caller, {group.id: group.name for group in groups}, input.limit)
    queues = tuple([await queue_of(context, caller, group.id, group.name, input.limit) for group in groups])
    lines = tuple(_line(context, group, nodes) for group in groups)
    nodes.sort(key=lambda agent: (agent.healthy and not agent.cordoned, agent.name))
    return Overview(context.clock(), lines, tuple(nodes[: input.limit]), busy, queues, hidden)


def _line(context: Context, group: Group, nodes: list[Agent]) -> Line:
    mine = [agent for agent in nodes if agent.group == group.name]
    well = sum(agent.healthy and not agent.cordoned for agent in mine)
    return Line(group.name, group.scheduler or context.config.scheduler, len(mine), well, group.capacity, group.used, group.waiting,
                group.running)


def _check(limit: int) -> None:
    if not 1 <= limit <= MOST:
        raise Failure("invalid-request", f"limit: {limit} must be from 1 to {MOST}.")


OPERATIONS = (
    declare("sessions.why", why, "GET", "/v1/sessions/{id}/why", query=("replay",)),
    declare("sessions.dry-run", dry_run, "POST", "/v1/sessions/dry-run"),
    declare("queue.get", queue, "GET", "/v1/queue", query=("group", "session", "limit")),
    declare("decisions.list", decisions, "GET", "/v1/decisions", query=("group", "session", "before", "limit")),
    declare("overview.get", overview, "GET", "/v1/overview", query=("limit",)),
)
