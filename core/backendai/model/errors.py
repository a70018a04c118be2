"""The closed set of errors. One table fixes the code, the HTTP status and the exit status of each.

An error has three parts: a sentence for the user that says what to do next, a bounded label for metrics (its code), and a detail for
the log that the user never sees.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ErrorKind:
    """One row of the table.

    code: stable, machine-readable, and the metric label. status: HTTP status. exit: exit status of ``bai``.
    title: what went wrong, in a few words, without the particulars.
    """

    code: str
    status: int
    exit: int
    title: str


_TABLE = (
    ErrorKind("invalid-request", 400, 2, "The request is not valid"),
    ErrorKind("unauthenticated", 401, 77, "No valid token was given"),
    ErrorKind("forbidden", 403, 77, "You may not do this"),
    ErrorKind("not-found", 404, 66, "There is no such thing"),
    ErrorKind("not-allowed", 405, 64, "This address does not take that method"),
    ErrorKind("conflict", 409, 75, "It is not in a state that allows this"),
    ErrorKind("name-taken", 409, 75, "The name is in use"),
    ErrorKind("idempotency-mismatch", 409, 65, "The idempotency key was used for another request"),
    ErrorKind("too-large", 413, 65, "The request is too large"),
    ErrorKind("bad-name", 422, 65, "The name is not valid"),
    ErrorKind("bad-slots", 422, 65, "The requested resources are not valid"),
    ErrorKind("impossible", 422, 65, "No agent could ever satisfy the request"),
    ErrorKind("bad-mount", 422, 65, "A mount is not valid"),
    ErrorKind("bad-image", 422, 65, "The image is not usable"),
    ErrorKind("bad-bootstrap", 422, 65, "The bootstrap script failed"),
    ErrorKind("rejected", 422, 65, "A policy of this site refused the request"),
    ErrorKind("too-many", 429, 75, "Too many requests"),
    ErrorKind("internal", 500, 70, "Something broke on our side"),
    ErrorKind("plugin-fault", 502, 70, "A plugin failed"),
    ErrorKind("runtime-fault", 502, 70, "The container runtime failed"),
    ErrorKind("unavailable", 503, 69, "A part of the platform does not answer"),
    ErrorKind("unreachable", 503, 69, "The platform cannot be reached"),
    ErrorKind("deadline", 504, 69, "It took longer than it may"),
    ErrorKind("unsupported", 501, 69, "This cannot be done here"),
)
KINDS = {kind.code: kind for kind in _TABLE}


class Failure(Exception):
    """Any error that a user may see.

    code: a key of ``KINDS``. message: one or two sentences: what is wrong, and what to do next. detail: for the log only.
    """

    def __init__(self, code: str, message: str, *, detail: str = "") -> None:
        self.kind = KINDS[code]
        self.message = message
        self.detail = detail
        super().__init__(message)

    @property
    def code(self) -> str:
        return self.kind.code

    def problem(self) -> dict[str, object]:
        """Return the ``application/problem+json`` body (RFC 9457)."""
        kind = self.kind
        return {"type": f"urn:backendai:error:{kind.code}", "title": kind.title, "status": kind.status, "code": kind.code,
                "detail": self.message}
