"""Beside Slurm: submitting, starting and draining jobs that do nothing, on as many emulated nodes; see slurm.md."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.load import Client, client
from tests.bench.load import workers as spread
from tests.bench.table import Row, at_least, at_most, show
from tests.parts import processes
from tests.parts.platform import Platform

NODES = 10
CORES = 64
HELD = 1000  # submitted and not started
DRAINED = 300
STARTED = 20
TURNS = 3
CONNECTIONS = 16
NEEDS = ("slurmctld", "slurmd", "munged", "gcc")
CLOCK = ("date", "+%s.%N")
SOURCE = Path(__file__).with_name("slurm_client.c")


@dataclass(frozen=True, slots=True)
class Figures:
    """submitted, drained: per second. starts: seconds each."""

    submitted: float
    drained: float
    starts: list[float]


class Slurm:
    """A controller and its nodes, all on this machine, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._env = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
        self._client = str(folder / "client")

    @contextmanager
    def up(self) -> Iterator[None]:
        """Start everything, wait until all nodes are idle, and end it."""
        folder = self._folder
        for name in ("state", "spool"):
            (folder / name).mkdir()
        (folder / "munge.key").write_bytes(os.urandom(128))
        (folder / "munge.key").chmod(0o600)
        (folder / "slurm.conf").write_text(configuration(folder))
        subprocess.run(["gcc", "-O2", "-o", self._client, str(SOURCE), "-lslurm"], check=True)
        with ExitStack() as stack:
            self._begin(stack, "munged", "--foreground", "--force", f"--socket={folder}/munge.sock", f"--key-file={folder}/munge.key",
                        f"--pid-file={folder}/munge.pid", f"--log-file={folder}/munge.log", f"--seed-file={folder}/munge.seed")
            processes.until((folder / "munge.sock").exists, 20.0, "munged to listen")
            self._begin(stack, "slurmctld", "-D")
            for number in range(NODES):
                self._begin(stack, "slurmd", "-D", "-N", f"n{number}")
            processes.until(self._idle, 60.0, "every Slurm node to be idle")
            yield

    def _begin(self, stack: ExitStack, *argv: str) -> None:
        quiet = subprocess.DEVNULL
        process = stack.enter_context(subprocess.Popen(argv, env=self._env, stdout=quiet, stderr=quiet))
        stack.callback(process.terminate)

    def _idle(self) -> bool:
        asked = subprocess.run(["sinfo", "-h", "-o", "%D %t"], env=self._env, check=False, capture_output=True, text=True)
        return asked.stdout.strip() == f"{NODES} idle"

    def _ask(self, *argv: str) -> list[float]:
        ran = subprocess.run([self._client, *argv], env=self._env, check=True, capture_output=True, text=True)
        return [float(line) for line in ran.stdout.split()]

    def submit(self) -> float:
        """Return jobs per second that it takes in when none may start."""
        taken = self._ask("held", str(HELD))[0]
        subprocess.run(["scancel", "--state=PENDING", "--user=root"], env=self._env, check=True)
        processes.until(lambda: not self._queue(), 60.0, "Slurm to forget held jobs")
        return HELD / taken

    def _queue(self) -> str:
        return subprocess.run(["squeue", "-h"], env=self._env, check=True, capture_output=True, text=True).stdout

    def drain(self) -> float:
        """Return jobs per second from the first submission until none is left."""
        begun = time.perf_counter()
        self._ask("submit", str(DRAINED))
        while self._ask("left")[0]:
            time.sleep(0.02)
        return DRAINED / (time.perf_counter() - begun)

    def start(self) -> list[float]:
        """Return seconds from calling srun until the job's own first instruction, on an idle cluster."""
        times = []
        for _ in range(STARTED):
            begun = time.time()
            said = subprocess.run(["srun", "-n1", "--quiet", *CLOCK], env=self._env, check=True, capture_output=True, text=True).stdout
            times.append(float(said) - begun)
        return times


def configuration(folder: Path) -> str:
    """Return slurm.conf: what makes it quick, and no accounting, cgroups or topology that would cost it time."""
    host = socket.gethostname().split(".")[0]
    ports = iter(free_ports(NODES + 1))
    lines = [
        "ClusterName=bench", f"SlurmctldHost={host}(127.0.0.1)", f"SlurmctldPort={next(ports)}", "SlurmUser=root", "SlurmdUser=root",
        "AuthType=auth/munge", f"AuthInfo=socket={folder}/munge.sock", f"StateSaveLocation={folder}/state",
        f"SlurmdSpoolDir={folder}/spool/%n", f"SlurmctldPidFile={folder}/ctld.pid", f"SlurmdPidFile={folder}/%n.pid",
        f"SlurmctldLogFile={folder}/ctld.log", f"SlurmdLogFile={folder}/%n.log", "ProctrackType=proctrack/linuxproc",
        "TaskPlugin=task/none", "SchedulerType=sched/backfill", "SelectType=select/cons_tres", "SelectTypeParameters=CR_CPU",
        "SlurmdParameters=config_overrides", "MpiDefault=none", "ReturnToService=2", "MaxJobCount=20000", "MinJobAge=2",
        "SchedulerParameters=sched_min_interval=0,default_queue_depth=10000,batch_sched_delay=0,bf_continue,bf_interval=1",
        *(f"NodeName=n{number} NodeHostname={host} NodeAddr=127.0.0.1 Port={next(ports)} CPUs={CORES} State=UNKNOWN"
          for number in range(NODES)),
        "PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO"]
    return "\n".join(lines) + "\n"


def free_ports(count: int) -> list[int]:
    """Return ports on which nobody listens now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


async def submit(api: Client) -> float:
    """Return sessions per second that we take in when none may start."""
    later = time.time() + 86400.0
    made, taken = await spread(CONNECTIONS, [lambda: api.create(["true"], not_before=later)] * HELD)
    for one in made:
        await api.call("POST", f"/v1/sessions/{one['id']}/stop")
    await api.drained()
    return HELD / taken


async def drain(api: Client) -> float:
    """Return sessions per second from the first request until none is left."""
    begun = time.perf_counter()
    await spread(CONNECTIONS, [lambda: api.create(["true"])] * DRAINED)
    await api.drained()
    return DRAINED / (time.perf_counter() - begun)


async def start(api: Client) -> list[float]:
    """Return seconds from asking for a session until its own first instruction, on an idle cluster."""
    times = []
    for _ in range(STARTED):
        begun = time.time()
        session = await api.create(CLOCK)
        await api.until(session["id"], "final")
        times.append(float(await api.text(f"/v1/sessions/{session['id']}/logs?format=text")) - begun)
    return times


async def ours(platform: Platform) -> Figures:
    async with client(platform, CONNECTIONS) as api:
        await drain(api)  # fills caches
        return Figures(await submit(api), await drain(api), await start(api))


def by_turns(platform: Platform, slurm: Slurm) -> tuple[list[Figures], list[Figures]]:
    """Return our figures and Slurm's, taken by turns."""
    slurm.drain()
    mine, theirs = [], []
    for _ in range(TURNS):
        mine.append(asyncio.run(ours(platform)))
        theirs.append(Figures(slurm.submit(), slurm.drain(), slurm.start()))
    return mine, theirs


def rows_of(mine: Sequence[Figures], theirs: Sequence[Figures]) -> list[Row]:
    """Compare the medians."""
    submitted = [statistics.median(one.submitted for one in side) for side in (mine, theirs)]
    drained = [statistics.median(one.drained for one in side) for side in (mine, theirs)]
    started = [statistics.median(seconds for one in side for seconds in one.starts) * 1000 for side in (mine, theirs)]
    return [at_least("submitted, none may start", submitted[0], submitted[1], 1.0),
            at_least("from the first submission to the last end", drained[0], drained[1], 1.0),
            at_most("from submission to start, p50", started[0], started[1], 1.0)]


def main() -> None:
    if lacking := [name for name in NEEDS if shutil.which(name) is None]:
        print(f"Left out: {', '.join(lacking)} not installed (Debian: slurm-wlm, munge, libslurm-dev, gcc).")
        return
    folder = processes.make_folder("slurm")
    platform = Platform("sandbox", names=tuple(f"n{number}" for number in range(NODES)))
    try:
        platform.start()
        slurm = Slurm(folder)
        with slurm.up():
            mine, theirs = by_turns(platform, slurm)
    finally:
        platform.remove()
        shutil.rmtree(folder, ignore_errors=True)
    show(f"Beside Slurm: {NODES} nodes, jobs that do nothing, by turns; ours in containers of the sandbox", rows_of(mine, theirs))


if __name__ == "__main__":
    main()
