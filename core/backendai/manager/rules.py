"""Who may do what: the table that ``manager.access`` reads and docs/ownership.md shows."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Verb(StrEnum):
    """What is done to a thing."""

    READ = "read"
    USE = "use"  # a resource group: have a session placed there
    CREATE = "create"
    CHANGE = "change"  # also: stop, remove
    EXEC = "exec"  # a session: run commands in it and touch its files


class As(StrEnum):
    """What somebody can be to a thing, from the least to the most; the values are for sentences and for the documentation."""

    EVERYONE = "everyone"
    GUEST = "those it is open to"  # its domains, projects and users are named one by one
    FELLOW = "a user of its domain"
    OWNER = "its owner"
    VIEWER = "a viewer of its project"
    MEMBER = "a member of its project"
    INSIDER = "its owner as a member of its project"
    PROJECT_ADMIN = "an administrator of its project"
    DOMAIN_ADMIN = "an administrator of its domain"
    SUPERADMIN = "an administrator of the platform"


R, U, C, W, X = Verb.READ, Verb.USE, Verb.CREATE, Verb.CHANGE, Verb.EXEC
ALL: tuple[As, ...] = (As.EVERYONE,)
NONE: tuple[As, ...] = ()  # superadmins alone, who may do everything
# Kind, verb: whoever is at least one of these. An administrator of a domain is one of each of its projects; an administrator of a
# project is a member, and a member a viewer. What stands nowhere is for superadmins.
RULES: Mapping[str, Mapping[Verb, tuple[As, ...]]] = {
    "session": {R: (As.OWNER, As.VIEWER), C: (As.MEMBER,), W: (As.OWNER, As.PROJECT_ADMIN), X: (As.INSIDER,)},
    "environment": {R: (As.OWNER,)},  # the values of a session's variables
    "project": {R: (As.VIEWER, As.DOMAIN_ADMIN), C: (As.DOMAIN_ADMIN,), W: (As.DOMAIN_ADMIN,)},
    "membership": {R: (As.VIEWER,), C: (As.PROJECT_ADMIN,), W: (As.OWNER, As.PROJECT_ADMIN)},  # who is what in a project
    "domain": {R: (As.FELLOW,), C: NONE, W: NONE},
    "domain administrator": {R: (As.FELLOW,), C: (As.DOMAIN_ADMIN,), W: (As.DOMAIN_ADMIN,)},  # who is one
    "user": {R: (As.OWNER, As.DOMAIN_ADMIN), C: (As.DOMAIN_ADMIN,), W: (As.OWNER, As.DOMAIN_ADMIN)},
    "account": {R: (As.OWNER, As.DOMAIN_ADMIN), W: (As.DOMAIN_ADMIN,)},  # whether a user may sign in, and where their sessions go
    "identity": {C: NONE, W: NONE},  # a user's role, domain, uid and gid
    "token": {R: (As.OWNER, As.DOMAIN_ADMIN), C: (As.OWNER, As.DOMAIN_ADMIN), W: (As.OWNER, As.DOMAIN_ADMIN)},
    "agent token": {R: NONE, C: NONE, W: NONE},
    "agent": {R: ALL, W: NONE},
    "image": {R: ALL, C: NONE, W: NONE},
    "plugin": {R: ALL},
    "event": {R: (As.OWNER,)},
    "metrics": {R: NONE},
    "platform's state": {R: NONE, W: NONE},  # its ledgers beside what agents have
    "user inside a session": {X: NONE},  # another one than the account's
    "group": {R: (As.GUEST,), U: (As.GUEST,), C: NONE, W: NONE},
    "preset": {R: ALL, C: NONE, W: NONE},
    "quota": {R: (As.OWNER, As.VIEWER, As.DOMAIN_ADMIN), C: (As.DOMAIN_ADMIN,), W: (As.DOMAIN_ADMIN,)},  # of a user or a project
    "domain quota": {R: (As.FELLOW,), C: NONE, W: NONE},
    "booking": {R: (As.GUEST, As.VIEWER, As.DOMAIN_ADMIN), U: (As.GUEST,), C: (As.PROJECT_ADMIN,), W: (As.PROJECT_ADMIN,)},
    "usage": {R: (As.OWNER, As.VIEWER, As.DOMAIN_ADMIN)},
    "decision": {R: NONE},
}
