"""Calls about who owns what: accounts, tokens, projects and domains. Use them as ``backendai.client.calls``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from backendai.client.call import Call, given, make_key

if TYPE_CHECKING:
    from backendai.model.views import Domain, Member, NewToken, Project, Token, User, Who


def whoami() -> Call[Who]:
    return Call("GET", "/v1/whoami", "Who")


def list_domains(all: bool = False) -> Call[tuple[Domain, ...]]:
    return Call("GET", "/v1/domains", "Domain", {"all": all or None}, many=True)


def get_domain(name: str) -> Call[Domain]:
    return Call("GET", _domain(name), "Domain")


def create_domain(name: str, key: str = "", **more: Any) -> Call[Domain]:
    """more: weight, borrow; what is None is left out."""
    return Call("POST", "/v1/domains", "Domain", body={"name": name, **given(more)}, key=key or make_key())


def change_domain(name: str, **changes: Any) -> Call[Domain]:
    """changes: weight, borrow, active; what is None stays."""
    return Call("PATCH", _domain(name), "Domain", body=given(changes))


def remove_domain(name: str) -> Call[None]:
    return Call("DELETE", _domain(name))


def list_projects(domain: str | None = None, all: bool = False) -> Call[tuple[Project, ...]]:
    return Call("GET", "/v1/projects", "Project", {"domain": domain, "all": all or None}, many=True)


def get_project(project: str) -> Call[Project]:
    return Call("GET", _project(project), "Project")


def create_project(name: str, key: str = "", **more: Any) -> Call[Project]:
    """more: domain, weight; what is None is left out."""
    return Call("POST", "/v1/projects", "Project", body={"name": name, **given(more)}, key=key or make_key())


def change_project(project: str, **changes: Any) -> Call[Project]:
    """changes: weight, active; what is None stays."""
    return Call("PATCH", _project(project), "Project", body=given(changes))


def remove_project(project: str) -> Call[None]:
    return Call("DELETE", _project(project))


def list_members(project: str) -> Call[tuple[Member, ...]]:
    return Call("GET", f"{_project(project)}/members", "Member", many=True)


def put_member(project: str, user: str, role: str | None = None) -> Call[Member]:
    return Call("PUT", f"{_project(project)}/members/{quote(user, safe='')}", "Member", body=given({"role": role}))


def remove_member(project: str, user: str) -> Call[None]:
    return Call("DELETE", f"{_project(project)}/members/{quote(user, safe='')}")


def list_users(domain: str | None = None, project: str | None = None) -> Call[tuple[User, ...]]:
    return Call("GET", "/v1/users", "User", {"domain": domain, "project": project}, many=True)


def get_user(name: str) -> Call[User]:
    return Call("GET", _user(name), "User")


def create_user(name: str, key: str = "", **more: Any) -> Call[User]:
    """more: role, email, uid, gid, domain, project; what is None is left out."""
    return Call("POST", "/v1/users", "User", body={"name": name, **given(more)}, key=key or make_key())


def change_user(name: str, **changes: Any) -> Call[User]:
    """changes: email, role, active, uid, gid, domain, project; what is None stays."""
    return Call("PATCH", _user(name), "User", body=given(changes))


def remove_user(name: str) -> Call[None]:
    return Call("DELETE", _user(name))


def list_tokens() -> Call[tuple[Token, ...]]:
    return Call("GET", "/v1/tokens", "Token", many=True)


def create_token(name: str, user: str | None = None, agent: bool = False, expires_in_s: float | None = None,
                 scopes: Sequence[str] | None = None, key: str = "") -> Call[NewToken]:
    asked = {"user": user, "agent": agent or None, "expires_in_s": expires_in_s, "scopes": scopes and list(scopes)}
    return Call("POST", "/v1/tokens", "NewToken", body={"name": name, **given(asked)}, key=key or make_key())


def remove_token(id: str) -> Call[None]:
    return Call("DELETE", f"/v1/tokens/{quote(id, safe='')}")


def _user(name: str) -> str:
    return f"/v1/users/{quote(name, safe='')}"


def _domain(name: str) -> str:
    return f"/v1/domains/{quote(name, safe='')}"


def _project(project: str) -> str:
    return f"/v1/projects/{quote(project, safe='')}"
