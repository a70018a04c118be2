"""Whether the runtime works, as far as this agent can tell."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from backendai.model.errors import Failure
from backendai.plugin.errors import PluginFault
from backendai.spec.runtime_v10 import Capabilities

log = logging.getLogger(__name__)
AWAY_S, HUNG_S = 2.0, 30.0  # of doubt after a call was refused, and after one did not come back


@dataclass(slots=True)
class Health:
    """why: empty while the runtime answers. capabilities: None until it has. heard: called when either changes.

    doubted_until: a call failed although others may work; until then (monotonic) an answer to another call proves nothing.
    """

    why: str = ""
    capabilities: Capabilities | None = None
    heard: Callable[[], None] = field(default=lambda: None)
    doubted_until: float = 0.0

    def well(self, capabilities: Capabilities | None = None) -> None:
        """Note that the runtime answered."""
        if time.monotonic() < self.doubted_until:
            return
        if self.why:
            log.info("the runtime answers again")
        new = capabilities is not None and capabilities != self.capabilities
        if self.why or new:
            self.why, self.capabilities = "", capabilities or self.capabilities
            self.heard()

    def doubt(self, error: BaseException) -> None:
        """Note that a call which changes something did not succeed: for a while nobody should count on the runtime."""
        self.doubted_until = time.monotonic() + (AWAY_S if isinstance(error, Failure) else HUNG_S)
        self.ill(error)

    def ill(self, error: BaseException) -> None:
        """Note that it did not, and why."""
        why = explain(error)
        if why != self.why:
            log.warning("the runtime does not work: %s", why)
            self.why = why
            self.heard()


def explain(error: BaseException) -> str:
    """Return a sentence for people about an error of the runtime; particulars of a plugin's defect stay in the log."""
    if isinstance(error, Failure):
        return error.message
    if isinstance(error, PluginFault) and isinstance(error.__cause__, TimeoutError):
        return f"The container runtime did not answer in time ({error.hook}); ask your administrator to look at the agent."
    if isinstance(error, PluginFault):
        return f"The container runtime failed ({error.hook}); ask your administrator to look at the agent."
    if isinstance(error, TimeoutError | asyncio.CancelledError):
        return "The container runtime did not answer in time; ask your administrator to look at the agent."
    if isinstance(error, OSError):
        return f"The agent could not do it: {error.strerror or type(error).__name__}; ask your administrator to look at it."
    return f"The agent or its runtime has a defect ({type(error).__name__}); its log says more."


def is_passing(error: BaseException) -> bool:
    """Tell whether trying again may help without anybody's doing."""
    if isinstance(error, Failure):
        return error.code in ("unavailable", "deadline")
    return isinstance(error, TimeoutError) or (isinstance(error, PluginFault) and isinstance(error.__cause__, TimeoutError))
