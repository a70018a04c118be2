"""Where errors go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from backendai.spec import Arity, OnError, Spec, hook


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """Something that should not have happened. context: ids of the session, agent, request and the like; never a secret.

    plugin: the id of the plugin that is to blame, empty for the platform itself.
    """

    message: str
    error: BaseException | None = None
    plugin: str = ""
    context: Mapping[str, str] = field(default_factory=dict)


class ErrorMonitor:
    """A receiver of errors."""

    @hook(deadline_s=5.0, on_error=OnError.IGNORE)
    async def capture(self, report: ErrorReport) -> None:
        """Take one error."""
        raise NotImplementedError


SPEC = Spec("monitor_error", 10, ErrorMonitor, Arity.MANY)
