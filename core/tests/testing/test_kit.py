"""The kit itself: how a law is tried, what counts as broken, as skipped, as a grade, and what pytest shows of it."""

from __future__ import annotations

import datetime
import io
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from backendai.model.errors import Failure
from backendai.spec import Skip, hookimpl
from backendai.spec.scheduler_v10 import Attempt, QueueView
from backendai.testing.check import Grade, Outcome, check, check_each, kit_of, laws
from backendai.testing.examples import for_all
from backendai.testing.laws import Violation, Weight, law
from backendai.testing.scheduler_v10 import SchedulerConformance
from backendai.testing.watch import cpu_limit, watching

FITS, STARTS = "test_it_fits_its_contract", "test_it_starts_and_stops"


class Good:
    @hookimpl
    def attempts(self, view: QueueView) -> Any:
        for waiting in view.waiting:
            yield Attempt(waiting.id)


def outcomes(plugin: Any) -> dict[str, tuple[Outcome, str]]:
    return {one.law.name: (one.outcome, one.why) for one in check(SchedulerConformance, plugin).results}


def test_what_does_not_fit_breaks_one_law_and_leaves_the_rest_untried() -> None:
    found = outcomes(object)
    assert found.pop(FITS) == (Outcome.FAIL, "attempts() is not implemented")
    assert set(found.values()) == {(Outcome.SKIP, f"{FITS} is broken: attempts() is not implemented")}


@pytest.mark.parametrize(("error", "said"), [
    (ValueError("no port"), "setup() failed: ValueError: no port"),
    (TimeoutError(), "setup() failed: TimeoutError"),
])
def test_what_does_not_start_breaks_one_law(error: Exception, said: str) -> None:
    class Stuck(Good):
        async def setup(self) -> None:
            raise error

    found = outcomes(Stuck)
    outcome, why = found.pop(STARTS)
    assert (outcome, why.startswith(said)) == (Outcome.FAIL, True)
    assert {outcome for outcome, _ in found.values()} == {Outcome.SKIP}


def test_what_is_not_usable_here_is_not_graded() -> None:
    class Absent(Good):
        async def setup(self) -> None:
            raise Skip("there is no moon")

    report = check(SchedulerConformance, Absent)
    assert (report.grade, report.good) == (Grade.NONE, False)
    assert {one.why for one in report.results} == {"it is not usable here: there is no moon"}


def test_what_is_not_installed_is_said_to_be() -> None:
    assert outcomes("scheduler_v10.nobody")[FITS][1].startswith("scheduler_v10.nobody is not installed")


def test_a_law_that_the_driver_cannot_do_is_skipped_with_its_words() -> None:
    class Kit(SchedulerConformance):
        @law(Weight.RECOMMENDED)
        async def test_extra(self, scheduler: Any) -> None:
            """It can fly."""
            raise Failure("unsupported", "This one has no wings.")

    last = list(check_each(Kit, Good))[-1]
    assert (last.law.name, last.law.sentence, last.law.weight) == ("test_extra", "It can fly.", "recommended")
    assert (last.outcome, last.why) == (Outcome.SKIP, "This one has no wings.")


def test_a_subclass_may_leave_a_law_out() -> None:
    class Kit(SchedulerConformance):
        test_it_forgets_nobody = None  # type: ignore[assignment]  # pytest leaves out what is no function

    assert {one.name for one in laws(SchedulerConformance)} - {one.name for one in laws(Kit)} == {"test_it_forgets_nobody"}


def test_every_law_has_a_sentence() -> None:
    from backendai.testing.check import KITS

    for spec in KITS:
        for one in laws(kit_of(spec)):
            assert one.sentence.endswith(".") and "\n" not in one.sentence, one.name
    with pytest.raises(Failure, match="There is no contract scheduler_v11"):
        kit_of("scheduler_v11")


@pytest.mark.parametrize("make", [lambda self: Good(), staticmethod(lambda: Good())], ids=["method", "static"])
def test_a_plugin_may_be_given_as_a_function(make: Any) -> None:
    if not isinstance(make, staticmethod):
        make = staticmethod(lambda: Good())
    assert check(type("Kit", (SchedulerConformance,), {"plugin": make})).grade == "A"


def test_options_are_given_as_an_operator_would() -> None:
    assert check(SchedulerConformance, "scheduler_v10.fifo", {"overtake": True}).grade == "A"


@pytest.mark.parametrize("blind", [False, True], ids=["with hypothesis", "without"])
def test_a_counterexample_is_named(blind: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if blind:
        monkeypatch.setitem(sys.modules, "hypothesis", None)

    def holds(number: int) -> None:
        if number > 20:
            raise Violation("it is too large")

    with pytest.raises(Violation, match=r"^it is too large, with \d+$") as caught:
        for_all(lambda random: random.randint(0, 1000), holds)
    if not blind:
        assert str(caught.value) == "it is too large, with 21", "the smallest one is told"


def test_without_hypothesis_the_kit_grades_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    class Ghost(Good):
        @hookimpl
        def attempts(self, view: QueueView) -> Any:
            yield from super().attempts(view)
            if len(view.waiting) > 4:
                yield Attempt("ghost")

    monkeypatch.setitem(sys.modules, "hypothesis", None)
    assert check(SchedulerConformance, Good).grade == "A"
    assert check(SchedulerConformance, Ghost).broken == ["test_it_names_only_who_waits"]


def test_examples_that_differ_from_run_to_run_are_still_a_violation() -> None:
    count = iter(range(100))

    def holds(number: int) -> None:
        if next(count) == 3:
            raise Violation("now and then")

    with pytest.raises(Violation, match="now and then"):
        for_all(lambda random: random.randint(0, 9), holds)


def ask_a_socket() -> object:
    with socket.socket() as unconnected:
        return unconnected.getsockname()


@pytest.mark.parametrize(("act", "seen"), [
    (time.time, "time.time"), (time.monotonic, "time.monotonic"), (datetime.datetime.now, "datetime.now"),
    (datetime.date.today, ""), (lambda: random.random(), "random.random"), (lambda: random.choice([1, 2]), "random."),
    (lambda: os.urandom(1), "posix.urandom"), (lambda: os.listdir("/"), "posix.listdir"),  # noqa: PTH208 - the call itself is meant
    (lambda: print(end=""), "print"),  # noqa: T201 - as it is
    (lambda: Path("/proc/self/comm").read_text(), "io"), (lambda: socket.getaddrinfo("127.0.0.1", 1), "_socket.getaddrinfo"),
    (ask_a_socket, "socket."),
])
def test_what_is_impure_is_seen(act: Callable[[], object], seen: str) -> None:
    with watching() as calls:
        act()
    assert calls
    assert seen in calls[0]


@pytest.mark.parametrize("act", [
    lambda: sorted([3, 1, 2]), lambda: Random(7).random(), lambda: datetime.datetime(2026, 1, 1).isoformat(), lambda: Path("/a") / "b",  # noqa: DTZ001
    lambda: io.StringIO().write("x"), lambda: time.strftime("%Y", (2026, 1, 1, 0, 0, 0, 0, 1, 0)), lambda: os.fspath(Path("/a")),
])
def test_what_is_pure_is_not_accused(act: Callable[[], object]) -> None:
    with watching() as calls:
        act()
    assert not calls


def test_what_never_ends_is_ended() -> None:
    def spin() -> None:
        while True:
            try:
                while True:
                    pass
            except Exception:
                continue

    with pytest.raises(Violation, match="too long"), cpu_limit(0.1, lambda: Violation("too long")):
        spin()


def test_limits_may_be_nested_and_waiting_does_not_count() -> None:
    with pytest.raises(Violation, match="outer"), cpu_limit(0.2, lambda: Violation("outer")):
        with cpu_limit(0.05, lambda: Violation("inner")):
            time.sleep(0.1)
        while True:
            pass


def test_in_another_thread_a_limit_is_measured() -> None:
    caught: list[Exception] = []

    def work() -> None:
        try:
            with cpu_limit(0.02, lambda: Violation("too long")):
                end = time.thread_time() + 0.05
                while time.thread_time() < end:
                    pass
        except Violation as violation:
            caught.append(violation)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(caught) == 1


FILE = """
import sys
from backendai.spec import hookimpl
from backendai.spec.scheduler_v10 import Attempt
from backendai.testing.scheduler_v10 import SchedulerConformance

class Lazy:
    @hookimpl
    def attempts(self, view):
        for waiting in view.waiting[:3]:
            yield Attempt(waiting.id)

class TestLazy(SchedulerConformance):
    plugin = Lazy

class TestNobody(SchedulerConformance):
    plugin = "scheduler_v10.nobody"
"""


def test_pytest_shows_the_law_and_the_grade(tmp_path: Path) -> None:
    (tmp_path / "test_lazy.py").write_text(FILE)
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:asyncio", "-p", "no:cacheprovider", str(tmp_path)], cwd=tmp_path,
                          capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    said = done.stdout
    assert "recommended law" in said and "Where there is room for everybody, everybody is tried." in said
    assert "Lazy (TestLazy): grade B, 20 laws hold, 3 could not be tried here\n" in said
    assert "scheduler_v10.nobody (TestNobody): grade C, 0 laws hold, 23 could not be tried here\n" in said


def test_the_pytest_plugin_costs_nothing_when_unused() -> None:
    code = ("import sys, pytest; before = set(sys.modules); import backendai.testing.pytest_plugin;"
            "print(*sorted(set(sys.modules) - before))")
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout.split()
    assert loaded == ["backendai", "backendai.testing", "backendai.testing.pytest_plugin"]
