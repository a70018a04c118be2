"""Two domains full of people, and what everyone may be to one session: for tests of who may do what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from backendai.manager.store.schema import domains, projects, roles, sessions, tokens, users
from sqlalchemy import Table, select

OWNER, NAME, KEY, BOOKING = "adamant", "secret-run", "sesame", "seminar"
PEOPLE = {  # name: domain, role, role in redwood/laboratory
    OWNER: ("redwood", "user", "member"), "viewer": ("redwood", "user", "viewer"), "member": ("redwood", "user", "member"),
    "chief": ("redwood", "user", "admin"), "ruler": ("redwood", "domain-admin", None), "neighbour": ("redwood", "user", None),
    "removed": ("redwood", "user", "member"), "outsider": ("bluebell", "user", None), "other-ruler": ("bluebell", "domain-admin", None),
}


@dataclass
class World:
    """served: the manager. tokens: of each person. session: OWNER's, in redwood/laboratory. ids: of what strangers may not see."""

    served: Any
    tokens: dict[str, str]
    session: str
    project: str
    domain: str
    token: str  # the id of OWNER's

    async def call(self, who: str, method: str, path: str, body: Any = None, **more: Any) -> Any:
        """Call as somebody, by name; "" is the administrator."""
        return await self.served.call(method, path, body, token=self.tokens.get(who), **more)

    async def status(self, token: str, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, str]:
        """Return status and text of an answer."""
        head = {"Authorization": f"Bearer {token}", **headers}
        given = {} if body is None else {"data": body} if isinstance(body, bytes) else {"json": body}
        async with self.served.http.request(method, self.served.url + path, headers=head, **given) as response:
            return response.status, await response.text()

    async def scoped(self, who: str, *scopes: str, **more: Any) -> str:
        """Return a token of somebody's with scopes."""
        made = await self.call(who, "POST", "/v1/tokens", {"name": "scoped", "scopes": scopes, **more}, status=201)
        return str(made["token"])

    async def dump(self) -> dict[str, list[Any]]:
        """Return everything that belongs to the domain redwood."""
        mine = select(users.c.id).where(users.c.domain_id == self.domain)
        places = select(projects.c.id).where(projects.c.domain_id == self.domain)
        wanted: list[tuple[Table, Any]] = [
            (users, users.c.domain_id == self.domain), (projects, projects.c.domain_id == self.domain),
            (domains, domains.c.id == self.domain),
            (roles, roles.c.user_id.in_(mine) | roles.c.scope_id.in_(places) | (roles.c.scope_id == self.domain)),
            (tokens, tokens.c.user_id.in_(mine)), (sessions, sessions.c.domain_id == self.domain)]

        async def job(connection: Any) -> dict[str, list[Any]]:
            return {table.name: sorted(map(tuple, (await connection.execute(select(table).where(where))).all()), key=repr)
                    for table, where in wanted}

        return await self.served.context.store.read(job)  # type: ignore[no-any-return]  # what the job returns


async def build(served: Any) -> World:
    """Make everybody and everything through the API."""
    call = served.call
    domain = (await call("POST", "/v1/domains", {"name": "redwood"}, status=201))["id"]
    await call("POST", "/v1/domains", {"name": "bluebell"}, status=201)
    project = (await call("POST", "/v1/projects", {"name": "laboratory", "domain": "redwood"}, status=201))["id"]
    await call("POST", "/v1/projects", {"name": "sideline", "domain": "redwood"}, status=201)
    held, ids = {}, {}
    for name, (where, role, rank) in PEOPLE.items():
        await call("POST", "/v1/users", {"name": name, "domain": where, "role": role}, status=201)
        if rank is not None:
            await call("PUT", f"/v1/projects/{project}/members/{name}", {"role": rank}, status=200)
        made = await call("POST", "/v1/tokens", {"name": f"of-{name}", "user": name}, status=201)
        held[name], ids[name] = made["token"], made["id"]
    for name in (OWNER, "neighbour"):
        await call("PUT", f"/v1/projects/redwood%2Fsideline/members/{name}", {}, status=200)
    world = World(served, held, "", project, domain, ids[OWNER])
    assert await world.call("removed", "GET", f"/v1/projects/{project}", status=200), "now the cache knows them as a member"
    await call("DELETE", f"/v1/projects/{project}/members/removed", status=204)
    node, now = await served.agent("oak"), served.context.clock()
    booking = {"name": BOOKING, "scope": "project:redwood/laboratory", "begins": now + 60, "ends": now + 120, "agents": [node]}
    await call("POST", "/v1/reservations", booking, status=201)
    asked = {"type": "batch", "name": NAME, "command": ["true"], "project": "laboratory", "env": {"KEY": KEY}}
    world.session = (await world.call(OWNER, "POST", "/v1/sessions", asked, status=201))["id"]
    return world
