"""Reading who owns what: a user with their roles, the projects there are, and what of the sessions a caller may see."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Row, and_, false, or_, select, true

from backendai.manager.access import Caller, Rank, Role, Thing, Verb, may
from backendai.manager.store.schema import domains, projects, roles, sessions
from backendai.model.errors import Failure
from backendai.spec.hook_v20 import User

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from backendai.manager.store.engine import Store

_ROLES = (select(roles.c.scope_id, roles.c.scope, roles.c.role, projects.c.name)
          .select_from(roles.outerjoin(projects, roles.c.scope_id == projects.c.id)).order_by(projects.c.name))


async def read_caller(connection: AsyncConnection, row: Row[Any], token: str = "", scopes: tuple[str, ...] = (),
                      expires_at: float | None = None) -> Caller:
    """Return the user of *row*, a row of ``users``, as a caller. token, scopes, expires_at: of the token that proved it.

    Raise ``Failure('forbidden')`` when their domain is not in use any more.
    """
    held = (await connection.execute(_ROLES.where(roles.c.user_id == row.id))).all()
    domain = (await connection.execute(select(domains.c.name, domains.c.active).where(domains.c.id == row.domain_id))).one()
    if not domain.active and row.role != Role.SUPERADMIN:
        raise Failure("forbidden", f"The domain {domain.name} is not in use any more; ask an administrator of the platform.")
    mine = [one for one in held if one.scope == "project" and one.name is not None]
    administered = frozenset(one.scope_id for one in held if one.scope == "domain")
    role = Role.DOMAIN_ADMIN.value if administered and row.role == Role.USER else row.role
    user = User(row.id, row.name, role, row.email, domain.name, tuple(one.name for one in mine))
    return Caller(user, row.uid, row.gid, token, None, row.domain_id, row.project_id, {one.scope_id: Rank(one.role) for one in mine},
                  administered, scopes, expires_at)


@dataclass(frozen=True, slots=True)
class Place:
    """A project and its domain. active: both are, so that sessions may be made there."""

    id: str
    name: str
    domain_id: str
    domain: str
    active: bool

    @property
    def title(self) -> str:
        """Return the name by which everyone may call it."""
        return f"{self.domain}/{self.name}"

    def thing(self, kind: str, owner_id: str | None = None) -> Thing:
        """Return what is asked for when *kind* belongs to this project, or is it."""
        return Thing(kind, owner_id, self.id, self.domain_id, name=self.name if kind == "project" else "")


class Places:
    """Every project by id, in memory until one changes."""

    def __init__(self) -> None:
        self._known: Mapping[str, Place] | None = None
        self._changing = 0
        self._generation = 0

    async def all(self, store: Store) -> Mapping[str, Place]:
        """Return the projects by id."""
        if (known := self._known) is not None:
            return known
        generation = self._generation
        found = await store.read(_read_places)
        if generation == self._generation and not self._changing:
            self._known = found
        return found

    def sure_of(self, place: Place) -> bool:
        """Tell whether *place*, which ``all`` returned, is still so, and nobody is about to change it."""
        return self._known is not None and self._known.get(place.id) is place

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Remember nothing while projects and domains change; look again afterwards."""
        self._changing += 1
        self._known = None
        try:
            yield
        finally:
            self._changing -= 1
            self._generation += 1
            self._known = None


async def _read_places(connection: AsyncConnection) -> dict[str, Place]:
    query = (select(projects.c.id, projects.c.name, projects.c.active, domains.c.id.label("domain_id"), domains.c.name.label("domain"),
                    domains.c.active.label("open")).select_from(projects.join(domains, projects.c.domain_id == domains.c.id)))
    return {row.id: Place(row.id, row.name, row.domain_id, row.domain, row.active and row.open)
            for row in await connection.execute(query)}


async def find_place(places: Places, store: Store, caller: Caller, wanted: str | None, domain_id: str = "") -> Place:
    """Return the project that *caller* means and may see. wanted: ID, NAME or DOMAIN/NAME; None for their own.

    domain_id: where a NAME is looked up, their own domain when empty.
    """
    known = await places.all(store)
    if wanted is None:
        ids = [caller.project_id] if not caller.within or caller.project_id in caller.within else sorted(caller.within)
        found = [known[id] for id in ids if id in known][:2]
    elif wanted in known:
        found = [known[wanted]]
    else:
        domain, slash, name = wanted.rpartition("/")
        home = domain_id or caller.domain_id
        found = [p for p in known.values() if p.name == name and (p.domain == domain if slash else p.domain_id == home)]
    found = [place for place in found if may(caller, Verb.READ, place.thing("project"))]
    if len(found) == 1:
        return found[0]
    if wanted is None:
        raise Failure("not-found", "You have no project of your own to use here; name one of those in `bai project ls`.")
    raise Failure("not-found", f"You have no project {wanted!r}; see `bai project ls`, and write DOMAIN/NAME for another domain's.")


def check_usable(place: Place) -> None:
    """Raise ``Failure('conflict')`` when nothing new may be made in a project."""
    if not place.active:
        said = f"The project {place.title} is not in use any more; choose another, or have an administrator of the domain make it active."
        raise Failure("conflict", said)


async def check_open(connection: AsyncConnection, place: Place) -> None:
    """The same, as the database has it now."""
    now = (await _read_places(connection)).get(place.id)
    check_usable(replace(place, active=now is not None and now.active))


def visible(caller: Caller) -> ColumnElement[bool]:
    """Return the condition on ``sessions`` that holds for those that *caller* may see, as ``access.may`` says of each."""
    where: ColumnElement[bool] = true()
    if caller.user.role != Role.SUPERADMIN:
        where = or_(sessions.c.owner_id == caller.id, sessions.c.project_id.in_(caller.projects) if caller.projects else false(),
                    sessions.c.domain_id.in_(caller.domains) if caller.domains else false())
    return and_(where, sessions.c.project_id.in_(caller.within)) if caller.within else where


def thing_of(row: Row[Any]) -> Thing:
    """Return what is asked for when it is the session of *row*."""
    return Thing("session", row.owner_id, row.project_id, row.domain_id, name=row.name)
