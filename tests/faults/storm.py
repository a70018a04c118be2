"""Sessions under a storm of kills: seeded, bounded, and counted."""

from __future__ import annotations

import http.client
import os
import random
import signal
import threading
import time
import urllib.error
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from tests.parts import processes
from tests.parts.platform import FINAL, Platform

WORKERS = 10
UNKNOWN = 255  # what Docker says of a container that ended while it was dead
END_S = 150.0  # a session that is not final this long after it was asked for is stuck
AWAY = (ConnectionError, TimeoutError, urllib.error.URLError, http.client.HTTPException)  # the manager is dead just now


@dataclass
class Ordeal:
    """One session and what became of it. kind: lines (to its end), stop (by its owner) or kill (of its container)."""

    number: int
    kind: str
    lines: int
    status: int
    id: str = ""
    end: Mapping[str, Any] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    @property
    def mark(self) -> str:
        return f"ordeal-{os.getpid()}-{self.number}-"

    @property
    def script(self) -> str:
        count = f": {self.mark}; i=0; while [ $i -lt {self.lines} ]; do echo $i; i=$((i+1)); sleep 0.05; done"
        return f"{count}; exit {self.status}" if self.kind == "lines" else f"{count}; sleep 600"


class Storm:
    """*sessions* sessions on *platform*, while *deaths* strike at random, each on its own. deaths: name to what kills and revives.

    pause_s: least and most seconds from a revival to the next death of the same part. blind: from when to when an engine was dead;
    Docker itself then loses output and exit status of a container that ends, and a start on which it was at work.
    """

    def __init__(self, platform: Platform, seed: int, sessions: int, deaths: dict[str, Callable[[random.Random], None]],
                 pause_s: tuple[float, float] = (0.3, 5.0)) -> None:
        self.platform = platform
        self.seed = seed
        chance = random.Random(seed)
        kinds = ("lines", "lines", "lines", "stop", "kill")
        self.ordeals = [Ordeal(n, chance.choice(kinds), chance.randrange(60), chance.randrange(4)) for n in range(sessions)]
        self.deaths = deaths
        self.struck: Counter[str] = Counter()
        self._pause_s = pause_s
        self._over = threading.Event()
        self.blind: list[tuple[float, float]] = []
        self.excused = 0
        self._broken: list[Exception] = []
        self._begun = time.monotonic()

    def run(self) -> None:
        """Let all sessions live through the storm; then revive everything and compare."""
        strikers = [threading.Thread(target=self._strike, args=(name, random.Random(f"{self.seed} {name}"))) for name in self.deaths]
        for striker in strikers:
            striker.start()
        try:
            with ThreadPoolExecutor(WORKERS) as pool:
                list(pool.map(self._live, self.ordeals))
        finally:
            self._over.set()
            for striker in strikers:
                striker.join()
        if self._broken:
            raise RuntimeError("what was killed did not come back") from self._broken[0]
        self.platform.start()
        for ordeal in self.ordeals:
            self._compare(ordeal)

    def summary(self) -> str:
        """Say in a few lines what happened."""
        ends = Counter(str(ordeal.end.get("state", "never asked")) for ordeal in self.ordeals)
        kinds = Counter(ordeal.kind for ordeal in self.ordeals)
        wrong = [f"  session {ordeal.number} ({ordeal.kind}, {ordeal.id}): {text}" for ordeal in self.ordeals for text in ordeal.wrong]
        return "\n".join([
            f"faults on {self.platform.runtime}, seed {self.seed}: {len(self.ordeals)} sessions {dict(kinds)} in "
            f"{time.monotonic() - self._begun:.0f} s",
            f"  killed: {dict(self.struck)}",
            f"  ended: {dict(ends)}; wrong: {len(wrong)}; lost by the engine itself, dead when they ended: {self.excused}", *wrong])

    @property
    def wrong(self) -> Sequence[str]:
        return [text for ordeal in self.ordeals for text in ordeal.wrong]

    def _strike(self, name: str, chance: random.Random) -> None:
        while not self._over.wait(chance.uniform(*self._pause_s)):
            try:
                self.deaths[name](chance)
            except Exception as error:  # told by run(), which waits for this thread
                self._broken.append(error)
                return
            self.struck[name] += 1

    def _live(self, ordeal: Ordeal) -> None:
        deadline = time.monotonic() + END_S
        try:
            ordeal.id = self._try(deadline, lambda: self.platform.ask_for(
                ordeal.script, headers={"Idempotency_Key": ordeal.mark}, grace_s=1))["id"]
            if ordeal.kind != "lines":
                self._reach(ordeal, deadline, "running")
                if ordeal.kind == "stop":
                    self._try(deadline, lambda: self.platform.rest("POST", f"/v1/sessions/{ordeal.id}/stop", {}))
                else:
                    self.struck["container"] += kill_container(ordeal.mark, deadline, lambda: self._is_over(ordeal, deadline))
            self._reach(ordeal, deadline, "final")
        except Exception as error:  # the storm's verdict, not the end of it
            ordeal.wrong.append(f"{type(error).__name__}: {error}")

    def _reach(self, ordeal: Ordeal, deadline: float, state: str) -> None:
        while True:
            ordeal.end = self._try(deadline, lambda: self.platform.rest("GET", f"/v1/sessions/{ordeal.id}?wait={state}&timeout_s=5"))
            if ordeal.end["state"] in FINAL or (state == "running" and ordeal.end["state"] == "RUNNING"):
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"stuck in {ordeal.end['state']}: {ordeal.end['hold'] or ordeal.end['reason'] or 'it does not say why'}")

    def _is_over(self, ordeal: Ordeal, deadline: float) -> bool:
        return self._try(deadline, lambda: self.platform.rest("GET", f"/v1/sessions/{ordeal.id}"))["state"] in FINAL

    def _try(self, deadline: float, call: Callable[[], Any]) -> Any:
        """Call until the manager is there to answer; a refusal is final."""
        while True:
            try:
                return call()
            except urllib.error.HTTPError as error:
                if error.code not in (502, 503, 504) or time.monotonic() > deadline:
                    raise RuntimeError(f"HTTP {error.code}: {error.read().decode(errors='replace')[:300]}") from error
            except AWAY:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.1)

    def _compare(self, ordeal: Ordeal) -> None:
        if not ordeal.end or ordeal.end["state"] not in FINAL:
            return
        written = self.platform.bai("logs", ordeal.id, code=None)
        if written.code:
            ordeal.wrong.append(f"no logs: {written.said.strip()[-200:]}")
            return
        lines = written.text.split()
        if lines != [str(number) for number in range(len(lines))]:
            ordeal.wrong.append(f"lines are lost, doubled or out of order: {lines[:60]}")
        if ordeal.kind == "lines":
            got = (ordeal.end["state"], ordeal.end["exit_code"], len(lines))
            want = ("TERMINATED", ordeal.status, ordeal.lines)
            in_the_dark = any(begin <= ordeal.end["ended_at"] <= end for begin, end in self.blind)
            if got != want and in_the_dark and (got[:2] == want[:2] or got[1] == UNKNOWN or ordeal.end["state"] == "FAILED"):
                self.excused += 1
            elif got != want:
                ordeal.wrong.append(f"{got} is not {want}: {ordeal.end['reason']}")


def kill_container(mark: str, deadline: float, is_over: Callable[[], bool]) -> bool:
    """Kill the container whose command has *mark*, as something on its node might; False where the session is over before it."""
    while time.monotonic() < deadline:
        found = [pid for pid in processes.processes() if pid != os.getpid() and mark in processes.read(pid, "cmdline")]
        inside = [pid for pid in found if in_own_namespace(pid)]
        if inside:
            try:
                os.kill(inside[-1], signal.SIGKILL)
            except ProcessLookupError:
                continue
            return True
        if is_over():
            return False
        time.sleep(0.05)
    raise TimeoutError("it is said to run, and there is no process of it")


def in_own_namespace(pid: int) -> bool:
    """Tell whether a process lives in a process namespace of its own, and so inside a container."""
    try:
        return os.readlink(f"/proc/{pid}/ns/pid") != os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - a magic link, not a path
    except OSError:
        return False


def death_of(platform: Platform, role: str, down_s: float = 1.5) -> Callable[[random.Random], None]:
    """Return what kills a process of the platform and starts it again a little later."""
    def strike(chance: random.Random) -> None:
        platform.kill(role)
        time.sleep(chance.uniform(0, down_s))
        platform.revive(role)

    return strike
