"""What pytest loads where backendai is installed: it says which law a failed test is about, and the grade that a plugin has earned.

It is loaded with every pytest run on a machine that has backendai, so it imports nothing and looks only at tests that are laws.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

_LAW = "backendai_law"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note on the report of a law whose it is and what it says."""
    report = yield
    test = getattr(item, "obj", None)
    if (told := getattr(test, "__law__", None)) is not None and (report.when == "call" or report.failed):
        owner = getattr(test, "__self__", None)
        report.user_properties.append((_LAW, (_name(owner), str(told[0]))))
        if report.failed:
            report.sections.append((f"{told[0]} law", (test.__doc__ or "").strip()))
    return report


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """Say the grade of each plugin whose laws were tried."""
    tried: dict[str, list[tuple[str, str]]] = {}
    for outcome in ("passed", "failed", "skipped"):
        for report in terminalreporter.stats.get(outcome, ()):
            for name, value in getattr(report, "user_properties", ()):
                if name == _LAW:
                    tried.setdefault(value[0], []).append((value[1], outcome))
    for plugin, laws in tried.items():
        terminalreporter.write_line(f"{plugin}: {_grade(laws)}")


def _name(owner: Any) -> str:
    plugin = getattr(owner, "plugin", "")
    return f"{plugin if isinstance(plugin, str) else getattr(plugin, '__name__', 'a plugin')} ({type(owner).__name__})"


def _grade(laws: list[tuple[str, str]]) -> str:
    failed = {weight for weight, outcome in laws if outcome == "failed"}
    held, missed = (sum(outcome == which for _, outcome in laws) for which in ("passed", "skipped"))
    grade = "C" if "required" in failed else "B" if failed else "A" if held else "-"
    return f"grade {grade}, {held} laws hold" + (f", {missed} could not be tried here" if missed else "")
