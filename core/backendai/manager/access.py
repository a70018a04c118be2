"""Who may do what: the one place that decides it, by the table in ``manager.rules``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from backendai.manager.rules import RULES, As, Verb
from backendai.manager.store.schema import DEFAULT, PROJECT
from backendai.model.errors import Failure
from backendai.spec.hook_v20 import User

__all__ = ["As", "Caller", "Once", "Rank", "Role", "Thing", "Verb", "check_scopes", "may", "narrower", "require", "standings"]

WITHIN = "project:"  # what a token's scope begins with that holds it to one project
SCOPES: Mapping[str, str] = {  # what a token may be made for
    "read": "see what its user sees; each of the others includes it",
    "sessions": "make, stop and forget sessions",
    "exec": "run commands in sessions and copy files",
    "admin": "whatever else its user may change: accounts, tokens, projects, limits, agents, images",
}


class Role(StrEnum):
    """What an account is to the whole platform."""

    SUPERADMIN = "superadmin"
    DOMAIN_ADMIN = "domain-admin"  # of its own domain
    USER = "user"


class Rank(StrEnum):
    """What a user is in a project."""

    ADMIN = "admin"
    MEMBER = "member"
    VIEWER = "viewer"


@dataclass(frozen=True, slots=True)
class Once:
    """A create that is to happen once, however often it is sent. request: SHA-256 of what was sent."""

    key: str
    request: str


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. token: the id of the token that proved it, empty where a plugin vouched. uid, gid: inside containers.

    once: set when this call came with an idempotency key. domain_id: whose user it is. project_id: where sessions go that name none.
    projects: rank by id of the project. domains: ids of those that they administer. scopes: what the token is for; empty for all.
    expires_at: when the token does.
    """

    user: User
    uid: int = 1000
    gid: int = 1000
    token: str = ""
    once: Once | None = None
    domain_id: str = DEFAULT
    project_id: str = PROJECT
    projects: Mapping[str, Rank] = field(default_factory=dict)
    domains: frozenset[str] = frozenset()
    scopes: tuple[str, ...] = ()
    expires_at: float | None = None

    @property
    def id(self) -> str:
        return self.user.id

    @property
    def superadmin(self) -> bool:
        """Tell whether everything is theirs to see: the account is a superadmin's, and the token is held to no project."""
        return self.user.role == Role.SUPERADMIN and not self.within

    @property
    def admin(self) -> bool:
        """Tell whether they administer the platform with this token."""
        return self.superadmin and self.may_use("admin")

    @property
    def within(self) -> frozenset[str]:
        """Return the ids of the projects that the token is held to, none of them when it is held to no project."""
        return frozenset(scope.removeprefix(WITHIN) for scope in self.scopes if scope.startswith(WITHIN))

    def may_use(self, scope: str) -> bool:
        """Tell whether the token is good for *scope*, one of ``SCOPES``."""
        verbs = [each for each in self.scopes if not each.startswith(WITHIN)]
        return not verbs or scope == "read" or scope in verbs


@dataclass(frozen=True, slots=True)
class Thing:
    """What is asked for. kind: a key of ``rules.RULES``. owner_id: whose. project_id, domain_id: where it is, None for nowhere.

    open_to: ids of domains, projects and users, or ``*``, where a thing is given to some by name. name: for messages.
    A thing in a project has its domain's id, too.
    """

    kind: str
    owner_id: str | None = None
    project_id: str | None = None
    domain_id: str | None = None
    open_to: frozenset[str] = frozenset()
    name: str = ""


def standings(caller: Caller, thing: Thing) -> frozenset[As]:
    """Return what *caller* is to *thing*; each rank includes those below it."""
    found, within = {As.EVERYONE}, caller.within
    ids = {"*", caller.domain_id, *(within & caller.projects.keys() if within else {caller.id, *caller.projects})}
    if ids & thing.open_to:
        found.add(As.GUEST)
    if within and thing.project_id not in within:
        return frozenset(found)
    if caller.superadmin:
        return frozenset(As)
    if thing.domain_id is not None and thing.domain_id == caller.domain_id:
        found.add(As.FELLOW)
    if thing.owner_id is not None and thing.owner_id == caller.id:
        found.add(As.OWNER)
    found |= _ranks(caller, thing)
    if As.OWNER in found and As.MEMBER in found:
        found.add(As.INSIDER)
    return frozenset(found)


def _ranks(caller: Caller, thing: Thing) -> set[As]:
    """Return what *caller* is by a role in the thing's project or domain."""
    everything = caller.user.role == Role.SUPERADMIN  # a superadmin's token that is held to this very project
    found: set[As] = set()
    if everything or (thing.domain_id is not None and thing.domain_id in caller.domains):
        found.add(As.DOMAIN_ADMIN)
    if thing.project_id is not None:
        rank = Rank.ADMIN if found else caller.projects.get(thing.project_id)
        order = (Rank.VIEWER, Rank.MEMBER, Rank.ADMIN)
        found |= set((As.VIEWER, As.MEMBER, As.PROJECT_ADMIN)[: order.index(rank) + 1 if rank else 0])
    return found


def may(caller: Caller, verb: Verb, thing: Thing) -> bool:
    """Tell whether *caller*, with this token, may do it."""
    return _good_for(caller, verb, thing) and _allowed(caller, verb, thing)


def _allowed(caller: Caller, verb: Verb, thing: Thing) -> bool:
    """Tell whether the user may do it, whatever else the token is for."""
    found = standings(caller, thing)
    return As.SUPERADMIN in found or not found.isdisjoint(RULES.get(thing.kind, {}).get(verb, ()))


def _good_for(caller: Caller, verb: Verb, thing: Thing) -> bool:
    return caller.may_use(needed_scope(verb, thing.kind))


def needed_scope(verb: Verb, kind: str) -> str:
    """Return which of ``SCOPES`` a token needs for this."""
    if verb is Verb.READ:
        return "read"
    if verb is Verb.EXEC:
        return "exec"
    return "sessions" if kind == "session" or verb is Verb.USE else "admin"


def require(caller: Caller, verb: Verb, thing: Thing) -> None:
    """Raise unless *caller* may do it: ``not-found`` for what they may not even see, else ``forbidden``, saying who may."""
    if may(caller, verb, thing):
        return
    held = caller.within and thing.project_id is None and _allowed(replace(caller, scopes=()), verb, thing)
    if not held and not _exists_for(caller, verb, thing):
        raise Failure("not-found", f"You have no such {thing.kind}{_named(thing)}.")
    if held:
        raise Failure("forbidden", "This token is held to a project, and this is in none; use another token.")
    if not _allowed(caller, verb, thing):
        who = [*RULES.get(thing.kind, {}).get(verb, ()), As.SUPERADMIN]
        raise Failure("forbidden", f"Only {' or '.join(who)} may {verb} this {thing.kind}{_named(thing)}; ask one of them.")
    scope = needed_scope(verb, thing.kind)
    said = f"This token is not for that (it has {', '.join(caller.scopes)}); use one with the scope `{scope}`."
    raise Failure("forbidden", said)


def _exists_for(caller: Caller, verb: Verb, thing: Thing) -> bool:
    """Tell whether *caller* may know of the thing, or for one that is to be made of the place where it would be."""
    if verb is Verb.CREATE or Verb.READ not in RULES.get(thing.kind, {}):
        kind = "project" if thing.project_id else "domain" if thing.domain_id else "user" if thing.owner_id else ""
        thing = Thing(kind, thing.owner_id, thing.project_id, thing.domain_id)
    nowhere = thing.owner_id is None and thing.project_id is None and thing.domain_id is None and not thing.open_to
    return nowhere or _allowed(caller, Verb.READ, thing)


def _named(thing: Thing) -> str:
    return f" {thing.name!r}" if thing.name else ""


def check_scopes(scopes: Iterable[str]) -> tuple[str, ...]:
    """Return a token's scopes in order, each once; raise ``Failure('invalid-request')`` with those that there are."""
    given = tuple(dict.fromkeys(scopes))
    for scope in given:
        if scope not in SCOPES and (not scope.startswith(WITHIN) or scope == WITHIN):
            raise Failure("invalid-request", f"scopes: {scope!r} is none; there are {', '.join(SCOPES)} and {WITHIN}NAME.")
    return given


def narrower(inner: tuple[str, ...], outer: tuple[str, ...]) -> bool:
    """Tell whether a token with the scopes *inner* can do nothing that one with *outer* cannot."""
    for here in (False, True):  # verbs, then projects
        some, most = ({scope for scope in scopes if scope.startswith(WITHIN) is here} for scopes in (inner, outer))
        if most and not (some and some <= most | {"read"}):
            return False
    return True
