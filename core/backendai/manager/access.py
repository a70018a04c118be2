"""Who may do what: the one place that says so."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from backendai.model.errors import Failure
from backendai.spec.hook_v20 import User


class Role(StrEnum):
    SUPERADMIN = "superadmin"
    USER = "user"


class Verb(StrEnum):
    """What is done to a thing."""

    READ = "read"
    CREATE = "create"
    CHANGE = "change"


@dataclass(frozen=True, slots=True)
class Once:
    """A create that is to happen once, however often it is sent. request: SHA-256 of what was sent."""

    key: str
    request: str


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. token: the id of the token that proved it, empty where a plugin vouched. uid, gid: inside containers.

    once: set when this call came with an idempotency key.
    """

    user: User
    uid: int = 1000
    gid: int = 1000
    token: str = ""
    once: Once | None = None

    @property
    def id(self) -> str:
        return self.user.id

    @property
    def admin(self) -> bool:
        return self.user.role == Role.SUPERADMIN


@dataclass(frozen=True, slots=True)
class Thing:
    """What is asked for. kind: ``session``, ``user``, ``token``, ``agent``, ``image``, ``plugin``, ``metrics``. owner_id: whose."""

    kind: str
    owner_id: str | None = None


_FOR_ALL = frozenset({("agent", Verb.READ), ("plugin", Verb.READ), ("image", Verb.READ)})


def may(caller: Caller, verb: Verb, thing: Thing) -> bool:
    """Tell whether *caller* may do it: administrators everything, others what is theirs and what everyone may see."""
    return caller.admin or (thing.owner_id is not None and thing.owner_id == caller.id) or (thing.kind, verb) in _FOR_ALL


def require(caller: Caller, verb: Verb, thing: Thing) -> None:
    """Raise unless *caller* may do it. Somebody else's thing does not exist for them; what nobody owns is merely forbidden."""
    if may(caller, verb, thing):
        return
    if thing.owner_id is not None:
        raise Failure("not-found", f"You have no such {thing.kind}.")
    raise Failure("forbidden", f"Only an administrator may {verb} this {thing.kind}; ask yours.")
