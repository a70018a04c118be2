"""The laws of a receiver of errors."""

from __future__ import annotations

import asyncio

from backendai.spec.monitor_error_v10 import SPEC, ErrorMonitor, ErrorReport
from backendai.testing.laws import Conformance, Violation, Weight, ensure, law
from backendai.testing.waiting import STILL_S, at_once, lets_others_run

PLAIN = ErrorReport("It broke.", context={"session": "s1"})


class ErrorMonitorConformance(Conformance[ErrorMonitor]):
    """What a receiver of errors keeps to. It is tried as its options say, so give it a receiver that may be written to.

    still_s: seconds that the process may stand still.
    """

    spec = SPEC
    still_s: float = STILL_S

    @law()
    async def test_it_takes_a_message(self, monitor: ErrorMonitor) -> None:
        """It takes a message without an exception, a plugin or a context."""
        await monitor.capture(ErrorReport("The disk is full."))

    @law()
    async def test_it_takes_an_error(self, monitor: ErrorMonitor) -> None:
        """It takes an exception with its traceback and its causes."""
        await monitor.capture(make_report())

    @law()
    async def test_it_takes_an_error_never_raised(self, monitor: ErrorMonitor) -> None:
        """It takes an exception that was never raised and so has no traceback."""
        await monitor.capture(ErrorReport("It broke.", ValueError(), plugin="scheduler_v10.newest"))

    @law()
    async def test_it_takes_exits(self, monitor: ErrorMonitor) -> None:
        """A cancellation, an interrupt or an exit is only news to it: it does not obey them."""
        for error in (asyncio.CancelledError(), SystemExit(3), KeyboardInterrupt()):
            try:
                await monitor.capture(ErrorReport("It was ended.", error))
            except (asyncio.CancelledError, SystemExit, KeyboardInterrupt) as obeyed:
                raise Violation(f"it raised {type(obeyed).__name__}, which it was only told of") from obeyed

    @law()
    async def test_it_takes_odd_text(self, monitor: ErrorMonitor) -> None:
        """It takes texts in any script, empty ones, lone surrogates and a megabyte."""
        for text in ("", "고장\n났다\0", "\udcff", "x" * 1_000_000):
            await monitor.capture(ErrorReport(text, context={"session": text}))

    @law()
    async def test_it_leaves_the_report_alone(self, monitor: ErrorMonitor) -> None:
        """It changes nothing in the report, which others get too."""
        report = make_report(cause=False)
        context, arguments = dict(report.context), report.error.args if report.error else ()
        await monitor.capture(report)
        ensure(report.context == context and report.error is not None and report.error.args == arguments, "it changed what it was told")

    @law(Weight.RECOMMENDED)
    async def test_it_takes_several_at_once(self, monitor: ErrorMonitor) -> None:
        """It takes an error while it still sends another."""
        await at_once(lambda: monitor.capture(PLAIN))

    @law(Weight.RECOMMENDED)
    async def test_it_lets_others_run(self, monitor: ErrorMonitor) -> None:
        """While it sends, the platform goes on: it blocks nobody."""
        await lets_others_run(lambda: monitor.capture(PLAIN), self.still_s)


def make_report(cause: bool = True) -> ErrorReport:
    """Make a report as the platform sends it, of an error that was raised."""
    try:
        raise RuntimeError("no such agent") from (KeyError("agent1") if cause else None)
    except RuntimeError as error:
        return ErrorReport("A decision could not be made.", error, context={"session": "s1", "agent": "agent1"})
