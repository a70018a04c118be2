"""Thousands of small storms over a played platform, each from a seed: ``python -m core.tests.manager.simulation [--seed N] [--runs N]``."""

from __future__ import annotations

import argparse
import asyncio
import logging
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random

from backendai.manager.config import ManagerConfig
from backendai.plugin.host import PluginHost

from core.tests.manager.books import Books
from core.tests.manager.calm import calm
from core.tests.manager.scene import SCHEDULERS, SELECTORS, found, people
from core.tests.manager.single import Engines, Fates, one_thread
from core.tests.manager.stage import plugins, staged
from core.tests.manager.storm import Storm

SESSIONS, FAULTS = 7, 5  # in one run, at least
MOST_WRONG = 20  # enough to see
PART = 50  # seeds that a worker takes at a time


@dataclass
class Tally:
    """What some runs came to. wrong: what went wrong, by seed. looks: commits after which the books were looked at. seen: as there."""

    runs: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    seen: Counter[str] = field(default_factory=Counter)
    looks: int = 0
    wrong: dict[int, str] = field(default_factory=dict)

    def add(self, other: Tally) -> None:
        """Add up."""
        self.runs += other.runs
        self.faults += other.faults
        self.ends += other.ends
        self.seen += other.seen
        self.looks += other.looks
        self.wrong |= other.wrong

    def summary(self, seconds: float) -> str:
        """Say in a few lines what happened."""
        lines = [f"simulation: {self.runs} runs, {self.faults.total()} faults, {self.ends.total()} sessions, "
                 f"{self.looks} commits looked at, in {seconds:.0f} s",
                 f"  faults: {_listed(self.faults)}", f"  sessions: {_listed(self.ends)}; of them {_listed(self.seen)}"]
        for seed, said in sorted(self.wrong.items()):
            lines.append(f"seed {seed} went wrong; again: python -m core.tests.manager.simulation --seed {seed}\n{said}")
        return "\n".join(lines)


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.most_common()) or "none"


async def prepare(folder: Path, host: PluginHost) -> Path:
    """Make the database that every run begins with: two groups, and quotas."""
    async with staged(folder, f"sqlite:///{folder / 'ready.db'}", host) as stage:
        await stage.box("ready")  # so that it is known which slots there are
        await found(stage)
    return folder / "ready.db"


async def run(seed: int, ready: Path, host: PluginHost, engines: Engines) -> tuple[Storm, Counter[str]]:
    """Have one storm, and the calm after it; raise what is wrong."""
    with tempfile.TemporaryDirectory(dir=ready.parent) as folder:
        shutil.copy(ready, Path(folder) / "run.db")
        chance, fates = Random(f"setting {seed}"), Fates(Random(f"fates {seed}"))
        with one_thread(fates, host, engines):
            async with staged(Path(folder), f"sqlite:///{folder}/run.db", host, scheduler=chance.choice(SCHEDULERS),
                              selector=chance.choice(SELECTORS)) as stage:
                await people(stage, chance)
                storm = Storm(stage, seed, fates, Books(lambda: stage.now))
                fates.committed = storm.books.look
                try:
                    await storm.blow(SESSIONS, FAULTS)
                    return storm, await calm(storm)
                finally:
                    fates.full = False
                    fates.spare()


async def run_some(seeds: Sequence[int], folder: str) -> Tally:
    """Run storms one after the other in this process."""
    tally = Tally()
    base = Path(tempfile.mkdtemp(dir=folder))
    engines = Engines()
    async with plugins(ManagerConfig(data=base)) as host:
        ready = await prepare(base, host)
        for seed in seeds:
            tally.runs += 1
            try:
                storm, ends = await run(seed, ready, host, engines)
            except Exception as error:
                tally.wrong[seed] = "".join(traceback.format_exception(error, limit=-6))[-3000:]
                continue
            tally.faults += storm.faults
            tally.ends += ends
            tally.seen += Counter({what: len(ids) for what, ids in storm.books.seen.items()})
            tally.looks += storm.books.looks
    return tally


def work(folder: str, seeds: Sequence[int]) -> Tally:
    """Run storms in a process of their own, as deep in silence as possible."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    return asyncio.run(run_some(seeds, folder))


def storms(seeds: Iterable[int], workers: int) -> tuple[Tally, float]:
    """Run a storm for each seed in some processes; return what it came to, and seconds."""
    begun, tally, wanted = time.monotonic(), Tally(), list(seeds)
    os.environ["PYTHONHASHSEED"] = "0"  # the order of sets is part of a run
    parts = [wanted[at:at + PART] for at in range(0, len(wanted), PART)]
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with (tempfile.TemporaryDirectory(prefix="storms-", dir=memory) as folder,
          multiprocessing.get_context("spawn").Pool(workers) as pool):
        for part in pool.imap_unordered(partial(work, folder), parts):
            tally.add(part)
            if len(tally.wrong) >= MOST_WRONG:
                break
    return tally, time.monotonic() - begun


def main(argv: Sequence[str]) -> int:
    """Run storms and say what came of them."""
    parser = argparse.ArgumentParser(prog="python -m core.tests.manager.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="run only this one")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--today", type=int, default=0, help="so many more, other seeds each day")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 2)
    asked = parser.parse_args(argv)
    today = int(time.time() // 86400) * 1000
    of_today = range(today, today + asked.today)
    seeds = [*range(asked.first, asked.first + asked.runs), *of_today] if asked.seed is None else [asked.seed]
    tally, seconds = storms(seeds, 1 if asked.seed is not None else asked.workers)
    if of_today:
        sys.stdout.write(f"seeds of today: {of_today.start} to {of_today.stop - 1}\n")
    sys.stdout.write(f"{tally.summary(seconds)}\n")
    return 1 if tally.wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
