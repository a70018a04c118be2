"""What can be asked of a manager, as plain data: each function returns a ``Call``, and how it is sent is somebody else's business."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from backendai.client.call import ANSWER_S, Call, Sessions, given, make_key
from backendai.client.explain import dry_run, get_overview, get_queue, list_decisions, why_session
from backendai.client.house import (
    change_agent,
    change_group,
    create_booking,
    create_group,
    create_preset,
    examine,
    get_group,
    list_bookings,
    list_groups,
    list_presets,
    list_quotas,
    list_slots,
    read_usage,
    remove_booking,
    remove_group,
    remove_preset,
    remove_quotas,
    set_quotas,
)
from backendai.client.owners import (
    change_domain,
    change_project,
    change_user,
    create_domain,
    create_project,
    create_token,
    create_user,
    get_domain,
    get_project,
    get_user,
    list_domains,
    list_members,
    list_projects,
    list_tokens,
    list_users,
    put_member,
    remove_domain,
    remove_member,
    remove_project,
    remove_token,
    remove_user,
    whoami,
)
from backendai.model.errors import Failure
from backendai.model.session import Mount, Network, Session, SessionState, SessionType

if TYPE_CHECKING:
    from backendai.model.views import Agent, Images, Plugin, Ran, SessionStats

__all__ = (  # what is passed on from the modules beside this one
    "Call", "Sessions", "change_agent", "change_domain", "change_group", "change_project", "change_user", "create_booking", "create_domain",
    "create_group", "create_preset", "create_project", "create_token", "create_user", "dry_run", "examine", "get_domain", "get_group",
    "get_overview", "get_project", "get_queue", "get_user", "list_bookings", "list_decisions", "list_domains", "list_groups",
    "list_members", "list_presets", "list_projects", "list_quotas", "list_slots", "list_tokens", "list_users", "put_member", "read_usage",
    "remove_booking", "remove_domain", "remove_group", "remove_member", "remove_preset", "remove_project", "remove_quotas", "remove_token",
    "remove_user", "set_quotas", "whoami", "why_session",
)
MOST_WAIT_S = 60.0  # that the server lets one request wait
PAGE = 200  # sessions in one answer, at most
RUN_S = 600.0  # that the server lets a command run when nobody says how long
REMOVE_S = 300.0  # that the server waits for the end of a session that is removed by force


@dataclass(frozen=True, slots=True)
class NewSession:
    """What to ask for. What is left out is up to the site.

    image: NAME:TAG. command: argv, for batch sessions. slots: such as ``{"cpu": 1, "mem": "512m"}``. priority: 0 to 100, higher first.
    time_limit_s: of running. grace_s: from SIGTERM to SIGKILL. mounts: folders of the node. workdir: an absolute path.
    project: NAME or DOMAIN/NAME, your own when left out.
    group: the resource group. preset: a named bundle of slots. reservation: an advance one to run in.
    cluster: containers by role, ``[{"role": "main"}, {"role": "sub", "count": 3}]``, and each with slots, image and command of its own
    where it needs them. wishes: where; agents, avoid, labels, arrange, zone, one_agent, strict. bootstrap: a shell script that runs before
    the command. not_before: seconds since the epoch. after: ``[{"session": "first", "kind": "afterok"}]``. retry: count, backoff_s,
    exit_codes. evicted: requeue or end, where it may make room for others. array: ``0-99%10``; the answer is the first.
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
    project: str | None = None
    group: str | None = None
    preset: str | None = None
    reservation: str | None = None
    cluster: Sequence[Mapping[str, Any]] = ()
    wishes: Mapping[str, Any] = field(default_factory=dict)
    bootstrap: str | None = None
    not_before: float | None = None
    after: Sequence[Mapping[str, str]] = ()
    retry: Mapping[str, Any] = field(default_factory=dict)
    evicted: str | None = None
    array: str | None = None

    def body(self) -> dict[str, Any]:
        """Return it as the API takes it."""
        body = {each.name: getattr(self, each.name) for each in fields(self)}
        body["mounts"] = [{"source": m.source, "target": m.target, "readonly": m.readonly} for m in self.mounts]
        return {name: value for name, value in body.items() if value not in (None, (), [], {})}


def create_session(new: NewSession, key: str = "") -> Call[Session]:
    return Call("POST", "/v1/sessions", "Session", body=new.body(), key=key or make_key())


def list_sessions(all: bool = False, state: SessionState | None = None, cursor: str | None = None, limit: int = PAGE,
                  project: str | None = None, user: str | None = None, everyone: bool = False) -> Call[Sessions]:
    """Yours; or those of a project, of a user, or of everyone whom you may see."""
    return Call("GET", "/v1/sessions", "Sessions", {"all": all or None, "state": state, "cursor": cursor, "limit": limit,
                                                    "project": project, "user": user, "everyone": everyone or None})


def get_session(session: str, wait: str | None = None, timeout_s: float | None = None) -> Call[Session]:
    return Call("GET", _session(session), "Session", {"wait": wait, "timeout_s": timeout_s})


def stop_session(session: str, grace_s: float | None = None) -> Call[Session]:
    return Call("POST", _session(session, "stop"), "Session", body={} if grace_s is None else {"grace_s": grace_s})


def remove_session(session: str, force: bool = False) -> Call[None]:
    return Call("DELETE", _session(session), query={"force": force or None}, answer_s=ANSWER_S + REMOVE_S * force)


def stats_of_session(session: str) -> Call[SessionStats]:
    return Call("GET", _session(session, "stats"), "SessionStats")


def logs_of_session(session: str, follow: bool = False, tail: int | None = None, attempt: int | None = None) -> Call[None]:
    return Call("GET", _session(session, "logs"), query={"follow": follow or None, "tail": tail, "attempt": attempt})


def exec_in_session(session: str, argv: Sequence[str], stdin: str = "", env: Mapping[str, str] | None = None, user: str | None = None,
                    workdir: str | None = None, timeout_s: float | None = None) -> Call[Ran]:
    asked = {"argv": list(argv), "stdin": stdin, "env": env, "user": user, "workdir": workdir, "timeout_s": timeout_s}
    answer_s = ANSWER_S + (RUN_S if timeout_s is None else timeout_s)
    return Call("POST", _session(session, "exec"), "Ran", body=given(asked), answer_s=answer_s)


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


def watch_events(follow: bool = True) -> Call[None]:
    return Call("GET", "/v1/events", query={"follow": follow})


def _session(session: str, part: str = "") -> str:
    if not session:
        raise Failure("invalid-request", "A session is named by its id or its name; see `bai ps`.")
    return f"/v1/sessions/{quote(session, safe='')}" + (f"/{part}" if part else "")
