"""One request as plain data: what to send, and how to read the answer."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import urlencode

from backendai.model.errors import KINDS, Failure
from backendai.model.session import Session

T = TypeVar("T")
ANSWER_S = 100.0  # for an answer; the server lets a request wait for 60 s


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
        from backendai.model import explain, views

        here = {"": None, "Session": Session, "Sessions": Sessions}
        return here[self.shape] if self.shape in here else getattr(views if hasattr(views, self.shape) else explain, self.shape)

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


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was given: everything but None."""
    return {name: value for name, value in values.items() if value is not None}


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
