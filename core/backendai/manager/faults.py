"""What should not have happened: counted, logged, and told to the monitor plugins."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping
from typing import TYPE_CHECKING

from backendai.manager.logs import scrub
from backendai.plugin.errors import PluginFault
from backendai.spec.monitor_error_v10 import SPEC as ERRORS
from backendai.spec.monitor_error_v10 import ErrorReport

if TYPE_CHECKING:
    from backendai.manager.context import Context

log = logging.getLogger(__name__)


def unexpected(context: Context, error: BaseException, about: Mapping[str, str]) -> None:
    """Log *error* with its traceback and tell the monitors."""
    log.error("%s: %s", type(error).__name__, error, exc_info=error, extra={"fields": about})
    context.metrics.errors.inc()
    _tell(context, ErrorReport(scrub(f"{type(error).__name__}: {error}"), _clean(error), context=about))


def plugin_fault(context: Context, fault: PluginFault) -> None:
    """Count a plugin's failure and tell the monitors; a failing monitor is not told of itself."""
    context.metrics.fault(fault)
    if not fault.plugin.startswith(f"{ERRORS.id}."):
        _tell(context, ErrorReport(scrub(str(fault)), _clean(fault.__cause__), fault.plugin, {"hook": fault.hook}))


def _clean(error: BaseException | None) -> BaseException | None:
    """Return *error* unless it or what it came from quotes a secret; the report's message is scrubbed in any case."""
    if error is None:
        return None
    told = "".join(traceback.format_exception(error))
    return error if scrub(told) == told else None


def _tell(context: Context, report: ErrorReport) -> None:
    if context.host.each(ERRORS):
        context.tasks.spawn(context.host.all(ERRORS).capture(report), "capture")
