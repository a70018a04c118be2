"""Projects of a domain, and who is what in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from backendai.manager.access import Caller, Rank, Thing, Verb, may, require
from backendai.manager.context import Context
from backendai.manager.operations.domains import check_name, check_weight, find_domain, refuse_active
from backendai.manager.operations.once import create_once, remember, violates
from backendai.manager.operations.registry import Input, Page, declare
from backendai.manager.store.engine import Tx
from backendai.manager.store.owners import Place, find_place
from backendai.manager.store.schema import DEFAULT, domains, projects, roles, sessions, users
from backendai.model.errors import Failure
from backendai.model.views import Member, Project

_TABLE = (select(projects, domains.c.name.label("domain"), domains.c.active.label("open"))
          .select_from(projects.join(domains, projects.c.domain_id == domains.c.id)))
_COUNTS = select(roles.c.scope_id, func.count().label("members")).where(roles.c.scope == "project").group_by(roles.c.scope_id)


class ListProjects(Input, frozen=True):
    """domain: only its projects. all: also those that are not in use any more."""

    domain: str | None = None
    all: bool = False


class CreateProject(Input, frozen=True):
    """name: lower case. domain: your own when left out. weight: in fair sharing within the domain."""

    name: str
    domain: str | None = None
    weight: float = 1.0


class OneProject(Input, frozen=True):
    """id: a project's id, NAME in your domain, or DOMAIN/NAME."""

    id: str


class ChangeProject(Input, frozen=True):
    """What is left out stays. active: false closes it; nothing new is made in it."""

    id: str
    weight: float | None = None
    active: bool | None = None


class PutMember(Input, frozen=True):
    """id: as for get. user: a user of the project's domain. role: admin, member or viewer."""

    id: str
    user: str
    role: Rank = Rank.MEMBER


class OneMember(Input, frozen=True):
    """id: as for get. user: one of the members."""

    id: str
    user: str


async def list_(context: Context, caller: Caller, input: ListProjects) -> Page[Project]:
    """List the projects that you may see, by domain and name."""
    where = domains.c.name == input.domain if input.domain is not None else domains.c.name != ""
    found = await _read(context, caller, where if input.all else and_(where, projects.c.active, domains.c.active))
    return Page(tuple(project for project, thing in found if may(caller, Verb.READ, thing)))


async def create(context: Context, caller: Caller, input: CreateProject) -> Project:
    """Make a project. Its members are added with projects.put_member."""
    by_id = domains.c.id == caller.domain_id
    domain = await find_domain(context, caller, by_id if input.domain is None else domains.c.name == input.domain)
    require(caller, Verb.CREATE, Thing("project", domain_id=domain.id))
    check_name("project", input.name)
    check_weight(input.weight)
    if not domain.active:
        raise Failure("conflict", f"The domain {domain.name} is not in use any more; open it with `bai domain set` first.")
    project_id, now = context.new_id(), context.clock()

    async def make() -> Project:
        async def job(tx: Tx) -> None:
            await tx.connection.execute(insert(projects), [{"id": project_id, "domain_id": domain.id, "name": input.name, "active": True,
                                                            "weight": input.weight, "created_at": now}])
            remember(tx, caller, project_id, now)
            tx.event("project.created", project_id, None, {"by": caller.user.name, "name": input.name, "domain": domain.name})

        try:
            with context.places.changing():
                await context.store.write(job)
        except IntegrityError as error:
            if violates(error, projects):
                raise Failure("name-taken", f"{domain.name} has a project {input.name!r} already; choose another name.") from error
            raise
        return Project(project_id, input.name, domain.name, True, input.weight, now)

    async def again(made: str) -> Project:
        return await get(context, caller, OneProject(id=made))

    return await create_once(context, caller, make, again)


async def get(context: Context, caller: Caller, input: OneProject) -> Project:
    """Show a project."""
    return await _show(context, caller, await _find(context, caller, input.id))


async def change(context: Context, caller: Caller, input: ChangeProject) -> Project:
    """Change a project, close it, or open it again."""
    place = await _find(context, caller, input.id, Verb.CHANGE)
    check_weight(1.0 if input.weight is None else input.weight)
    given = {"weight": input.weight, "active": input.active}
    await _apply(context, caller, place, {name: value for name, value in given.items() if value is not None})
    return await _show(context, caller, place)


async def remove(context: Context, caller: Caller, input: OneProject) -> None:
    """Close a project: nothing new is made in it. What was, stays to be seen, and its name stays its own."""
    await _apply(context, caller, await _find(context, caller, input.id, Verb.CHANGE), {"active": False})


async def members(context: Context, caller: Caller, input: OneProject) -> Page[Member]:
    """List who is in a project, by name."""
    place = await _find(context, caller, input.id)
    require(caller, Verb.READ, place.thing("membership"))
    query = (select(users.c.name, users.c.email, roles.c.role).select_from(roles.join(users, roles.c.user_id == users.c.id))
             .where(roles.c.scope_id == place.id).order_by(users.c.name))

    async def job(connection: AsyncConnection) -> Sequence[Any]:
        return (await connection.execute(query)).all()

    return Page(tuple(Member(row.name, row.role, row.email) for row in await context.store.read(job)))


async def put_member(context: Context, caller: Caller, input: PutMember) -> Member:
    """Make a user of the domain a member, or change what a member is."""
    place = await _find(context, caller, input.id)
    require(caller, Verb.CREATE, place.thing("membership"))

    async def job(tx: Tx) -> Row[Any]:
        user = await _user_of(tx.connection, place, input.user)
        await tx.connection.execute(delete(roles).where(roles.c.user_id == user.id, roles.c.scope_id == place.id))
        await tx.connection.execute(insert(roles), [
            {"user_id": user.id, "scope_id": place.id, "scope": "project", "role": input.role.value}])
        tx.event("project.joined", place.id, user.id, {"by": caller.user.name, "name": place.title, "user": user.name,
                                                       "role": input.role.value})
        tx.after(context.tokens.forget)
        return user

    user = await context.store.write(job)
    return Member(user.name, input.role.value, user.email)


async def remove_member(context: Context, caller: Caller, input: OneMember) -> None:
    """Take a user out of a project. Their sessions there go on, and they may stop them, but not enter them."""
    place = await _find(context, caller, input.id)
    user = await context.store.read(lambda connection: _user_of(connection, place, input.user, member=True))
    require(caller, Verb.CHANGE, place.thing("membership", user.id))

    async def job(tx: Tx) -> None:
        await tx.connection.execute(delete(roles).where(roles.c.user_id == user.id, roles.c.scope_id == place.id))
        tx.event("project.left", place.id, user.id, {"by": caller.user.name, "name": place.title, "user": user.name})
        tx.after(context.tokens.forget)

    await context.store.write(job)


async def _user_of(connection: AsyncConnection, place: Place, name: str, *, member: bool = False) -> Row[Any]:
    """Return the row of an active user of the project's domain. member: of somebody who is in the project."""
    query = select(users).where(users.c.name == name)
    inside = select(roles.c.user_id).where(roles.c.scope_id == place.id)
    query = query.where(users.c.id.in_(inside)) if member else query.where(users.c.domain_id == place.domain_id, users.c.active)
    row = (await connection.execute(query)).first()
    if row is None:
        where = "is not in the project" if member else f"is no active user of the domain {place.domain}"
        raise Failure("not-found", f"{name!r} {where}; see `bai project members {place.title}`.")
    return row


async def _find(context: Context, caller: Caller, wanted: str, verb: Verb = Verb.READ) -> Place:
    place = await find_place(context.places, context.store, caller, wanted)
    require(caller, verb, place.thing("project"))
    return place


async def _apply(context: Context, caller: Caller, place: Place, values: Mapping[str, Any]) -> None:
    closes = values.get("active") is False
    if closes and place.name == DEFAULT:
        raise Failure("conflict", f"{place.title} cannot be closed: every new user of the domain begins there.")

    async def job(tx: Tx) -> None:
        if closes:
            await refuse_active(tx.connection, sessions.c.project_id == place.id, f"the project {place.title}")
        if values:
            await tx.connection.execute(update(projects).where(projects.c.id == place.id).values(values))
        tx.event("project.changed", place.id, None, {"by": caller.user.name, "name": place.title, "changed": sorted(values)})
        tx.after(lambda: context.bus.wake(everything=True))

    with context.places.changing():
        await context.store.write(job)


async def _show(context: Context, caller: Caller, place: Place) -> Project:
    return (await _read(context, caller, projects.c.id == place.id))[0][0]


async def _read(context: Context, caller: Caller, where: ColumnElement[bool]) -> list[tuple[Project, Thing]]:
    query = _TABLE.where(where).order_by(domains.c.name, projects.c.name)

    async def job(connection: AsyncConnection) -> tuple[Sequence[Row[Any]], dict[str, int]]:
        counts = {row.scope_id: row.members for row in await connection.execute(_COUNTS)}
        return (await connection.execute(query)).all(), counts

    rows, counts = await context.store.read(job)
    return [(Project(r.id, r.name, r.domain, r.active and r.open, r.weight, r.created_at, str(caller.projects.get(r.id, "")),
                     counts.get(r.id, 0)), Thing("project", project_id=r.id, domain_id=r.domain_id)) for r in rows]


_ONE = "/v1/projects/{id}"
OPERATIONS = (
    declare("projects.list", list_, "GET", "/v1/projects", query=("domain", "all")),
    declare("projects.create", create, "POST", "/v1/projects", status=201, mutates=True, creates=True),
    declare("projects.get", get, "GET", _ONE),
    declare("projects.update", change, "PATCH", _ONE, mutates=True),
    declare("projects.delete", remove, "DELETE", _ONE, status=204, mutates=True),
    declare("projects.members", members, "GET", f"{_ONE}/members"),
    declare("projects.put_member", put_member, "PUT", f"{_ONE}/members/{{user}}", mutates=True),
    declare("projects.remove_member", remove_member, "DELETE", f"{_ONE}/members/{{user}}", status=204, mutates=True),
)
