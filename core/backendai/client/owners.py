"""Calls about who owns what: accounts, tokens, projects and domains. Use them as ``backendai.client.calls``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from backendai.client.call import Call, given, make_key

if TYPE_CHECKING:
    from backendai.model.views import NewToken, Token, User, Who


def whoami() -> Call[Who]:
    return Call("GET", "/v1/whoami", "Who")


def list_users() -> Call[tuple[User, ...]]:
    return Call("GET", "/v1/users", "User", many=True)


def get_user(name: str) -> Call[User]:
    return Call("GET", _user(name), "User")


def create_user(name: str, key: str = "", **more: Any) -> Call[User]:
    """more: role, email, uid, gid; what is None is left out."""
    return Call("POST", "/v1/users", "User", body={"name": name, **given(more)}, key=key or make_key())


def change_user(name: str, **changes: Any) -> Call[User]:
    """changes: email, role, active, uid, gid; what is None stays."""
    return Call("PATCH", _user(name), "User", body=given(changes))


def remove_user(name: str) -> Call[None]:
    return Call("DELETE", _user(name))


def list_tokens() -> Call[tuple[Token, ...]]:
    return Call("GET", "/v1/tokens", "Token", many=True)


def create_token(name: str, user: str | None = None, agent: bool = False, expires_in_s: float | None = None,
                 key: str = "") -> Call[NewToken]:
    body = {"name": name, **given({"user": user, "agent": agent or None, "expires_in_s": expires_in_s})}
    return Call("POST", "/v1/tokens", "NewToken", body=body, key=key or make_key())


def remove_token(id: str) -> Call[None]:
    return Call("DELETE", f"/v1/tokens/{quote(id, safe='')}")


def _user(name: str) -> str:
    return f"/v1/users/{quote(name, safe='')}"
