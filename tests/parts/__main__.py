"""Run every test beside the real parts, and remove the parts: what ``make test`` does once everything is installed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from tests.parts.absent import Absent, strict
from tests.parts.image import ROOT
from tests.parts.serve import serve

UNIT = "not system and not docker and not postgres and not bench"
OTHER_VERSIONS = ("3.12", "3.13")
STEP_S = 900.0
CLEAN_S = 60.0  # for a step that was interrupted to remove what it made


@dataclass(frozen=True, slots=True)
class Step:
    """A command whose exit status counts. setup: run before it, in the same turn. empty: pytest's status for no tests at all."""

    name: str
    argv: tuple[str, ...]
    setup: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)


def pytest(python: str, *options: str) -> tuple[str, ...]:
    """Return the command that runs tests with *python*."""
    return (python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options)


def find_python(version: str) -> str | None:
    """Return an interpreter of *version* that works, from the path, from pyenv or from uv."""
    places = [shutil.which(f"python{version}"), *map(str, sorted(Path.home().glob(f".pyenv/versions/{version}*/bin/python"))),
              *map(str, sorted(Path.home().glob(f".local/share/uv/python/cpython-{version}*/bin/python3")))]
    for place in filter(None, places):
        asked = subprocess.run([place, "--version"], check=False, capture_output=True, text=True)
        if asked.stdout.startswith(f"Python {version}."):
            return place
    return None


def steps() -> Iterator[tuple[Step, ...]]:
    """Yield what there is to run, the quickest to fail first; those of one tuple side by side, for none of them needs a machine alone."""
    here = sys.executable
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    yield (Step("lint", ("scripts/lint.sh",), env={"PATH": f"{Path(here).parent}:{os.environ['PATH']}"}),
           Step(f"unit tests, Python {version}", pytest(here, "-m", UNIT, "core", "plugins")))
    yield (Step("contracts, imports, docs", pytest(here, "-m", "not bench", "tests/contracts", "tests/imports", "tests/docs")),)
    yield (Step("parts with real engines", pytest(here, "-m", "(system or docker or postgres) and not bench", "core", "plugins")),)
    yield (Step("system tests", pytest(here, "-m", "not bench", "tests/system")),)
    yield (Step("fault tests", pytest(here, "-m", "not bench", "-s", "tests/faults")),)
    others = {other: found for other in OTHER_VERSIONS if other != version and (found := find_python(other)) is not None}
    yield tuple(Step(f"unit tests, Python {other}", pytest(f".venv-{other}/bin/python", "-m", UNIT, "core", "plugins"),
                     setup=("scripts/setup.sh", f".venv-{other}", "test", python)) for other, python in others.items())


def run_all(together: Sequence[Step], env: dict[str, str]) -> list[tuple[str, bool, float]]:
    """Run steps side by side; return name, whether it went well, and seconds of each. What one says comes when it has ended."""
    stop = threading.Event()
    if not together:
        return []
    if len(together) == 1:
        print(f"\n=== {together[0].name}", flush=True)
        return [(together[0].name, *run(together[0], env, None, stop))]
    outcomes = []
    with ThreadPoolExecutor(len(together)) as pool:
        print(f"\n... {', '.join(step.name for step in together)}", flush=True)
        running = {pool.submit(aside, step, env, stop): step for step in together}
        try:
            for done in as_completed(running):
                good, taken, said = done.result()
                print(f"\n=== {running[done].name}\n{said}", flush=True)
                outcomes.append((running[done].name, good, taken))
        finally:
            stop.set()  # when we are interrupted, the steps are to end too
    return outcomes


def aside(step: Step, env: dict[str, str], stop: threading.Event) -> tuple[bool, float, str]:
    """Run one step and keep what it says."""
    with tempfile.TemporaryFile() as out:
        good, taken = run(step, env, out, stop)
        out.seek(0)
        return good, taken, out.read().decode(errors="replace")


def run(step: Step, env: dict[str, str], out: IO[bytes] | None, stop: threading.Event) -> tuple[bool, float]:
    """Run one step; return whether it went well and how many seconds it took."""
    begun = time.monotonic()
    good = True
    for argv in filter(None, (step.setup, step.argv)):
        with subprocess.Popen(argv, cwd=ROOT, env={**env, **step.env}, start_new_session=True, stdout=out, stderr=out) as process:
            try:
                good = waited(process, stop) == 0 and good
            except BaseException as why:
                interrupt(process)
                if not isinstance(why, subprocess.TimeoutExpired):
                    raise
                print(f"{step.name}: not within {STEP_S:g} s", flush=True)
                good = False
    return good, time.monotonic() - begun


def waited(process: subprocess.Popen[bytes], stop: threading.Event) -> int:
    """Wait for a step; raise when it is late, or when the whole run is being interrupted."""
    deadline = time.monotonic() + STEP_S
    while not stop.is_set():
        try:
            return process.wait(1.0)
        except subprocess.TimeoutExpired:
            if time.monotonic() > deadline:
                raise
    raise KeyboardInterrupt


def interrupt(process: subprocess.Popen[bytes]) -> None:
    """End a step as Ctrl-C would, so that it cleans up; kill it when it does not."""
    os.killpg(process.pid, signal.SIGINT)
    try:
        process.wait(CLEAN_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)


def main() -> int:
    """Run all steps and print what became of them."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with ExitStack() as stack:
        named, absent = serve(stack)
        absent += [f"Python {version}, whose unit tests are left out." for version in OTHER_VERSIONS if find_python(version) is None]
        for why in absent:
            print(f"Missing here: {why}", flush=True)
        outcomes = [outcome for together in steps() for outcome in run_all(together, {**os.environ, **named})]
    print("\n" + "\n".join(f"{'ok    ' if good else 'FAILED'}  {taken:6.0f} s  {name}" for name, good, taken in outcomes))
    if absent and strict():
        print("FAILED: with CI=true every part must be there.")
        return 1
    return 0 if all(good for _, good, _ in outcomes) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except Absent as why:
        sys.exit(str(why))
