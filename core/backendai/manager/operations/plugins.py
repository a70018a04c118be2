"""What runs here, and who asks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

import backendai
from backendai.manager.access import Caller, Thing, Verb, require
from backendai.manager.context import Context
from backendai.manager.operations.agents import AgentInfo
from backendai.manager.operations.registry import Nothing, Page, declare
from backendai.manager.operations.tokens import show_scopes
from backendai.manager.store.schema import agents
from backendai.model.views import Plugin, Who


async def list_(context: Context, caller: Caller, input: Nothing) -> Page[Plugin]:
    """List the plugins of the manager and of every agent."""
    require(caller, Verb.READ, Thing("plugin"))

    async def job(connection: AsyncConnection) -> list[Any]:
        return list(await connection.execute(select(agents.c.name, agents.c.info).order_by(agents.c.name)))

    items = [Plugin(r.id, r.dist, r.version, r.state.value, r.why, "manager") for r in context.host.rows]
    for row in await context.store.read(job):
        items += [_of_agent(row.name, plugin)
                  for plugin in msgspec.json.decode(row.info, type=AgentInfo).plugins]
    return Page(tuple(items))


def _of_agent(agent: str, told: Mapping[str, str]) -> Plugin:
    known = {name: told.get(name, "") for name in ("id", "dist", "version", "state", "why")}
    return Plugin(**known, where=agent)


async def whoami(context: Context, caller: Caller, input: Nothing) -> Who:
    """Show who you are to this cluster."""
    user, places = caller.user, await context.places.all(context.store)
    home = places.get(caller.project_id)
    return Who(user.id, user.name, user.role, user.email, caller.uid, caller.gid, caller.token, context.cluster,
               backendai.__version__, user.domain, home.name if home else "",
               {places[id].name: rank.value for id, rank in caller.projects.items() if id in places}, show_scopes(places, caller.scopes))


OPERATIONS = (
    declare("plugins.list", list_, "GET", "/v1/plugins"),
    declare("whoami", whoami, "GET", "/v1/whoami"),
)
