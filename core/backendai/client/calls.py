"""What can be asked of a manager, as plain data: each function returns a ``Call``, and how it is sent is somebody else's business."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import quote, urlencode

from backendai.model.errors import KINDS, Failure
from backendai.model.session import Mount, Network, Session, SessionState, SessionType

if TYPE_CHECKING:
    from backendai.model.views import Agent, Images, NewToken, Plugin, Ran, SessionStats, Token, User, Who

T = TypeVar("T")
MOST_WAIT_S = 60.0  # that the server lets one request wait
PAGE = 200  # sessions in one answer, at most
ANSWER_S = 100.0  # for an answer; the server lets a request wait for 60 s
RUN_S = 600.0  # that the server lets a command run when nobody says how long
REMOVE_S = 300.0  # that the server waits for the end of a session that is removed by force


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request. path: quoted. query: what is None is left out. body: JSON. key: the idempotency key, empty for none.

    shape: the name of the answer's type, empty when there is none; types are loaded when an answer is read. many: it is a list, in a page.
    answer_s: how long the answer may take.
    """

    method: str
    path: str
    shape: str = ""
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    key: str = ""
    many: bool = False
    answer_s: float = ANSWER_S

    @property
    def target(self) -> str:
        """Return path and query as they stand in the request line."""
        given = {name: _word(value) for name, value in self.query.items() if value is not None}
        return f"{self.path}?{urlencode(given)}" if given else self.path

    @property
    def repeatable(self) -> bool:
        """Tell whether sending it twice does what sending it once does."""
        return self.method in ("GET", "PUT", "DELETE") or bool(self.key)

    def headers(self, token: str) -> dict[str, str]:
        """Return the headers to send."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        if self.body is not None:
            headers["Content-Type"] = "application/json"
        if self.key:
            headers["Idempotency-Key"] = self.key
        return headers

    def payload(self) -> bytes | None:
        """Return the body to send."""
        return None if self.body is None else json.dumps(self.body).encode()

    @property
    def type(self) -> Any:
        """Return the type of the answer, or of each thing in it; None when there is none."""
        from backendai.model import views

        here = {"": None, "Session": Session, "Sessions": Sessions}
        return here[self.shape] if self.shape in here else getattr(views, self.shape)

    def read(self, data: bytes) -> T:
        """Decode the answer's body; raise ``Failure('internal')`` when it is not what the API promises."""
        if not self.shape:
            return None  # type: ignore[return-value]  # Call[None] is what such a call is typed as
        import msgspec  # here, because whoever only passes JSON on starts faster without it

        try:
            if self.many:
                page: Any = msgspec.json.decode(data, type=_Items[self.type])  # type: ignore[name-defined]  # a type by value
                return page.items  # type: ignore[no-any-return]  # as above
            return msgspec.json.decode(data, type=self.type)  # type: ignore[no-any-return]  # as above
        except msgspec.DecodeError as error:
            raise Failure("internal", f"{self.path} answered with something else than the API: {error}.") from error


@dataclass(frozen=True, slots=True)
class _Items(Generic[T]):
    items: tuple[T, ...]


@dataclass(frozen=True, slots=True)
class Sessions:
    """A page of sessions, newest first. next: the cursor of what follows, None at the end."""

    items: tuple[Session, ...]
    next: str | None = None


@dataclass(frozen=True, slots=True)
class NewSession:
    """What to ask for. What is left out is up to the site.

    image: NAME:TAG. command: argv, for batch sessions. slots: such as ``{"cpu": 1, "mem": "512m"}``. priority: 0 to 100, higher first.
    time_limit_s: of running. grace_s: from SIGTERM to SIGKILL. mounts: folders of the node. workdir: an absolute path.
    """

    type: SessionType = SessionType.BATCH
    name: str | None = None
    image: str | None = None
    command: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    slots: Mapping[str, str | int | float] = field(default_factory=dict)
    priority: int | None = None
    time_limit_s: float | None = None
    grace_s: float | None = None
    network: Network | None = None
    mounts: Sequence[Mount] = ()
    workdir: str | None = None
    tags: Sequence[str] = ()

    def body(self) -> dict[str, Any]:
        """Return it as the API takes it."""
        given = {each.name: getattr(self, each.name) for each in fields(self)}
        given["mounts"] = [{"source": m.source, "target": m.target, "readonly": m.readonly} for m in self.mounts]
        return {name: value for name, value in given.items() if value not in (None, (), [], {})}


def failure(status: int, data: bytes) -> Failure:
    """Return the error that an answer of *status* 400 or more tells of; a code that this client does not know keeps its sentence."""
    try:
        problem = json.loads(data)
        code, said = str(problem["code"]), str(problem["detail"])
    except (ValueError, KeyError, TypeError):
        code, said = "", f"The server answered with status {status}; is this the address of a manager?"
    if code not in KINDS:
        code = next((kind.code for kind in KINDS.values() if kind.status == status), "internal" if status >= 500 else "invalid-request")
    return Failure(code, said)


def make_key() -> str:
    """Return a new idempotency key."""
    return os.urandom(16).hex()


def create_session(new: NewSession, key: str = "") -> Call[Session]:
    return Call("POST", "/v1/sessions", "Session", body=new.body(), key=key or make_key())


def list_sessions(all: bool = False, state: SessionState | None = None, cursor: str | None = None, limit: int = PAGE) -> Call[Sessions]:
    return Call("GET", "/v1/sessions", "Sessions", {"all": all or None, "state": state, "cursor": cursor, "limit": limit})


def get_session(session: str, wait: str | None = None, timeout_s: float | None = None) -> Call[Session]:
    return Call("GET", _session(session), "Session", {"wait": wait, "timeout_s": timeout_s})


def stop_session(session: str, grace_s: float | None = None) -> Call[Session]:
    return Call("POST", _session(session, "stop"), "Session", body={} if grace_s is None else {"grace_s": grace_s})


def remove_session(session: str, force: bool = False) -> Call[None]:
    return Call("DELETE", _session(session), query={"force": force or None}, answer_s=ANSWER_S + REMOVE_S * force)


def stats_of_session(session: str) -> Call[SessionStats]:
    return Call("GET", _session(session, "stats"), "SessionStats")


def logs_of_session(session: str, follow: bool = False, tail: int | None = None) -> Call[None]:
    return Call("GET", _session(session, "logs"), query={"follow": follow or None, "tail": tail})


def exec_in_session(session: str, argv: Sequence[str], stdin: str = "", env: Mapping[str, str] | None = None, user: str | None = None,
                    workdir: str | None = None, timeout_s: float | None = None) -> Call[Ran]:
    given = {"argv": list(argv), "stdin": stdin, "env": env, "user": user, "workdir": workdir, "timeout_s": timeout_s}
    answer_s = ANSWER_S + (RUN_S if timeout_s is None else timeout_s)
    return Call("POST", _session(session, "exec"), "Ran", body=_given(given), answer_s=answer_s)


def open_exec(session: str) -> Call[None]:
    return Call("GET", _session(session, "exec"))


def archive_of_session(session: str, path: str, put: bool = False) -> Call[None]:
    return Call("PUT" if put else "GET", _session(session, "archive"), query={"path": path})


def list_agents() -> Call[tuple[Agent, ...]]:
    return Call("GET", "/v1/agents", "Agent", many=True)


def get_agent(agent: str) -> Call[Agent]:
    return Call("GET", f"/v1/agents/{quote(agent, safe='')}", "Agent")


def list_plugins() -> Call[tuple[Plugin, ...]]:
    return Call("GET", "/v1/plugins", "Plugin", many=True)


def list_images() -> Call[Images]:
    return Call("GET", "/v1/images", "Images")


def pull_image(image: str, agent: str | None = None) -> Call[None]:
    return Call("POST", "/v1/images/pull", body={"image": image, **({"agent": agent} if agent else {})})


def build_image(name: str, agent: str | None = None) -> Call[None]:
    return Call("POST", "/v1/images/build", query={"name": name, "agent": agent})


def remove_image(name: str, agent: str | None = None) -> Call[None]:
    return Call("DELETE", "/v1/images", query={"name": name, "agent": agent})


def whoami() -> Call[Who]:
    return Call("GET", "/v1/whoami", "Who")


def list_users() -> Call[tuple[User, ...]]:
    return Call("GET", "/v1/users", "User", many=True)


def get_user(name: str) -> Call[User]:
    return Call("GET", _user(name), "User")


def create_user(name: str, key: str = "", **more: Any) -> Call[User]:
    """more: role, email, uid, gid; what is None is left out."""
    return Call("POST", "/v1/users", "User", body={"name": name, **_given(more)}, key=key or make_key())


def change_user(name: str, **changes: Any) -> Call[User]:
    """changes: email, role, active, uid, gid; what is None stays."""
    return Call("PATCH", _user(name), "User", body=_given(changes))


def remove_user(name: str) -> Call[None]:
    return Call("DELETE", _user(name))


def list_tokens() -> Call[tuple[Token, ...]]:
    return Call("GET", "/v1/tokens", "Token", many=True)


def create_token(name: str, user: str | None = None, agent: bool = False, expires_in_s: float | None = None,
                 key: str = "") -> Call[NewToken]:
    body = {"name": name, **_given({"user": user, "agent": agent or None, "expires_in_s": expires_in_s})}
    return Call("POST", "/v1/tokens", "NewToken", body=body, key=key or make_key())


def remove_token(id: str) -> Call[None]:
    return Call("DELETE", f"/v1/tokens/{quote(id, safe='')}")


def watch_events(follow: bool = True) -> Call[None]:
    return Call("GET", "/v1/events", query={"follow": follow})


def _session(session: str, part: str = "") -> str:
    if not session:
        raise Failure("invalid-request", "A session is named by its id or its name; see `bai ps`.")
    return f"/v1/sessions/{quote(session, safe='')}" + (f"/{part}" if part else "")


def _user(name: str) -> str:
    return f"/v1/users/{quote(name, safe='')}"


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
