"""Vetoes and notices on the platform's events.

A *veto* hook runs before something happens: raise ``Reject`` to refuse it; any other failure, a missed deadline included, refuses
too where the hook's policy is *deny*. A *notice* tells what has happened; nothing that a plugin does there changes it. An *answer*
hook stops at the first plugin that answers something other than None.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from backendai.model.session import Session, SessionSpec
from backendai.spec import Arity, OnError, Spec, hook


@dataclass(frozen=True, slots=True)
class User:
    """An account. role: ``superadmin`` or ``user``. domain, projects: names of where it belongs; a superadmin may go anywhere."""

    id: str
    name: str
    role: str
    email: str = ""
    domain: str = ""
    projects: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """An HTTP request before anybody is known to have sent it. headers: names in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    remote: str


@dataclass(frozen=True, slots=True)
class Credentials:
    """What somebody typed to sign in; ``extra`` holds further fields such as a one-time code."""

    name: str
    password: str = field(repr=False)
    extra: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Signup:
    """An account that is about to be made."""

    name: str
    email: str
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Enqueue:
    """A session that its owner has just asked for. project, domain: names of where it will be."""

    id: str
    user: User
    spec: SessionSpec
    project: str = ""
    domain: str = ""


@dataclass(frozen=True, slots=True)
class Placement:
    """A session and the agents that the scheduler chose for its kernels, in order."""

    session: Session
    spec: SessionSpec
    agents: Sequence[str]


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """An agent's sign of life. capacity, free: slots as plain numbers."""

    agent: str
    healthy: bool
    capacity: Mapping[str, int | float]
    free: Mapping[str, int | float]


class Hooks:
    """The events. Each argument is frozen; a plugin takes only the arguments that it wants."""

    @hook(deadline_s=30.0, on_error=OnError.DENY, optional=True)
    async def activate_manager(self) -> None:
        """Veto: the manager is about to serve, for example a licence check. A refusal ends the process."""

    @hook(first=True, deadline_s=5.0, on_error=OnError.DENY, optional=True)
    async def pre_auth(self, request: Request) -> str | None:
        """Answer: the name of the user who sent a request that carries no bearer token, or None for somebody else to say."""

    @hook(first=True, deadline_s=10.0, on_error=OnError.DENY, optional=True, fired=False)
    async def authorize(self, credentials: Credentials) -> User | None:
        """Answer: the user whom these credentials prove, or None to leave it to the platform's own check."""

    @hook(first=True, deadline_s=10.0, on_error=OnError.DENY, optional=True, fired=False)
    async def post_authorize(self, user: User, credentials: Credentials) -> Mapping[str, str] | None:
        """Answer: a challenge to put to the user before signing in, such as a second factor, or None."""

    @hook(deadline_s=10.0, on_error=OnError.DENY, optional=True, fired=False)
    async def pre_signup(self, signup: Signup) -> Mapping[str, str] | None:
        """Veto: an account is about to be made. Return attributes to set on it; a later plugin's win."""

    @hook(deadline_s=5.0, on_error=OnError.DENY, optional=True, fired=False)
    async def verify_password_format(self, user: str, password: str) -> None:
        """Veto: somebody chose *password*."""

    @hook(deadline_s=10.0, on_error=OnError.IGNORE, optional=True, fired=False)
    async def post_signup(self, user: User) -> None:
        """Notice: an account was made."""

    @hook(deadline_s=5.0, on_error=OnError.DENY, optional=True)
    async def pre_enqueue_session(self, enqueue: Enqueue) -> None:
        """Veto: a session is about to enter the queue."""

    @hook(deadline_s=10.0, on_error=OnError.IGNORE, optional=True)
    async def post_enqueue_session(self, enqueue: Enqueue) -> None:
        """Notice: a session has entered the queue."""

    @hook(deadline_s=1.0, on_error=OnError.DENY, optional=True)
    async def predicate(self, placement: Placement) -> None:
        """Veto: a session is about to be placed. A refusal leaves it waiting, with the reason as its hold."""

    @hook(deadline_s=5.0, on_error=OnError.DENY, optional=True)
    async def pre_start_session(self, placement: Placement) -> None:
        """Veto: a placed session's containers are about to be made. A refusal fails it with the reason."""

    @hook(deadline_s=10.0, on_error=OnError.IGNORE, optional=True)
    async def post_start_session(self, session: Session) -> None:
        """Notice: a session runs."""

    @hook(deadline_s=5.0, on_error=OnError.DENY, optional=True)
    async def pre_destroy_session(self, session: Session, user: User) -> None:
        """Veto: *user* asked to stop a session."""

    @hook(deadline_s=10.0, on_error=OnError.IGNORE, optional=True)
    async def post_destroy_session(self, session: Session) -> None:
        """Notice: a session has reached its final state."""

    @hook(deadline_s=5.0, on_error=OnError.IGNORE, optional=True)
    async def post_agent_heartbeat(self, heartbeat: Heartbeat) -> None:
        """Notice: an agent gave a sign of life."""


SPEC = Spec("hook", 20, Hooks, Arity.MANY)
