"""Who is meant: ``domain:D``, ``project:P`` or ``project:D/P``, ``user:U``, and ``*`` for everyone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from backendai.manager.access import Thing
from backendai.manager.store.schema import domains, projects, users
from backendai.model.errors import Failure

EVERYONE = "*"
KINDS = ("domain", "project", "user")


@dataclass(frozen=True, slots=True)
class Scope:
    """A domain, a project or a user. name: as people write it. domain_id, project_id: where it is; the project's own for a project."""

    kind: str
    id: str
    name: str
    domain_id: str | None = None
    project_id: str | None = None

    @property
    def title(self) -> str:
        """Return it as it is written."""
        return f"{self.kind}:{self.name}"

    def thing(self, kind: str) -> Thing:
        """Return what is asked for when *kind* belongs to this scope."""
        return Thing(kind, self.id if self.kind == "user" else None, self.project_id, self.domain_id)


async def find_scope(connection: AsyncConnection, text: str, domain_id: str) -> Scope:
    """Return what *text* means to somebody of the domain *domain_id*; raise ``Failure`` when there is no such thing."""
    kind, colon, name = text.partition(":")
    if kind not in KINDS or not colon or not name:
        raise Failure("invalid-request", f"{text!r} is nobody; write domain:NAME, project:NAME or user:NAME.")
    found = [scope for scope in await _read(connection, kind) if name in (scope.name, scope.id) or (
        kind == "project" and scope.domain_id == domain_id and scope.name.rpartition("/")[2] == name)]
    if not found:
        raise Failure("not-found", f"There is no {kind} {name!r}; see `bai {kind} ls`.")
    return found[0]


async def find_scopes(connection: AsyncConnection, texts: Iterable[str], domain_id: str) -> frozenset[str]:
    """Return the ids of what *texts* mean; ``*`` stays as it is."""
    return frozenset([text if text == EVERYONE else (await find_scope(connection, text, domain_id)).id for text in texts])


async def read_scopes(connection: AsyncConnection) -> dict[str, Scope]:
    """Return every domain, project and user by id."""
    return {scope.id: scope for kind in KINDS for scope in await _read(connection, kind)}


def titles(ids: Iterable[str], scopes: dict[str, Scope]) -> tuple[str, ...]:
    """Return how ids are written, in order; one that is nobody's any more stays an id."""
    return tuple(sorted(scopes[id].title if id in scopes else id for id in ids))


async def _read(connection: AsyncConnection, kind: str) -> list[Scope]:
    if kind == "domain":
        return [Scope(kind, row.id, row.name, row.id) for row in await connection.execute(select(domains.c.id, domains.c.name))]
    if kind == "user":
        return [Scope(kind, row.id, row.name, row.domain_id)
                for row in await connection.execute(select(users.c.id, users.c.name, users.c.domain_id))]
    query = (select(projects.c.id, projects.c.name, domains.c.id.label("domain_id"), domains.c.name.label("domain"))
             .select_from(projects.join(domains, projects.c.domain_id == domains.c.id)))
    return [Scope(kind, row.id, f"{row.domain}/{row.name}", row.domain_id, row.id) for row in await connection.execute(query)]
