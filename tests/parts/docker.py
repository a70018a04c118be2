"""A Docker engine of our own: its folders, socket, bridge and containerd are nobody else's."""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.parts import processes
from tests.parts.absent import Absent

READY_S = 60.0
POOL = "10.{pool}.0.0/16"  # 1,024 networks of 64 addresses; Docker's own default ends after 31 networks


@dataclass
class Engine:
    """An engine that answers. url: for DOCKER_HOST. folder: what it keeps; None when it is not ours to stop."""

    url: str
    folder: Path | None = None
    argv: list[str] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None
    containerd: subprocess.Popen[bytes] | None = None

    def run(self, *argv: str, stdin: int | None = None, timeout_s: float = 120.0) -> str:
        """Run the docker command against this engine and return what it prints."""
        try:
            done = subprocess.run(["docker", *argv], env={**os.environ, "DOCKER_HOST": self.url}, check=True, stdin=stdin,
                                  capture_output=True, text=True, timeout=timeout_s)
        except FileNotFoundError:
            raise Absent("the docker command is not installed") from None
        except subprocess.CalledProcessError as error:
            raise RuntimeError(f"docker {' '.join(argv)}: {error.stderr.strip()}") from None
        return done.stdout

    def start(self) -> None:
        """Start the engine, again after ``kill``, and wait until it answers."""
        assert self.folder is not None, "this engine is not ours to start"
        log = self.folder / "log"
        if self.containerd is None:
            self._start_containerd(self.folder)
        process = self.process = processes.start(self.argv, log)

        def answers() -> bool:
            if process.poll() is not None:
                last = log.read_text(errors="replace").splitlines()[-1:] or ["it said nothing"]
                raise Absent(f"dockerd does not start here: {last[0][-200:]}")
            return ping(self.url)

        processes.until(answers, READY_S, "dockerd")

    def _start_containerd(self, folder: Path) -> None:
        """Start it apart from dockerd, as distributions do, so that containers live on when dockerd is killed."""
        settings = folder / "containerd.toml"
        settings.write_text(f'version = 2\nroot = "{folder}/data/containerd"\nstate = "{folder}/exec/containerd"\n'
                            f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\naddress = "{folder}/c"\n')
        self.containerd = processes.start(["containerd", "--config", str(settings)], folder / "log")
        processes.until((folder / "c").exists, READY_S, "containerd")

    def kill(self) -> None:
        """Kill the engine as a crash would; its containers go on."""
        assert self.process is not None, "this engine is not ours to kill"
        self.process.kill()
        self.process.wait()


def ping(url: str) -> bool:
    """Tell whether an engine answers at *url* (``unix:///path``)."""
    connection = http.client.HTTPConnection("docker", timeout=2)
    try:
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(2)
        connection.sock.connect(url.removeprefix("unix://"))
        connection.request("GET", "/_ping")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


@contextmanager
def docker_engine() -> Iterator[Engine]:
    """Yield the engine that BACKENDAI_TEST_DOCKER names, else one of our own where we may have one."""
    if url := os.environ.get("BACKENDAI_TEST_DOCKER"):
        if not ping(url):
            raise Absent(f"no Docker engine answers at BACKENDAI_TEST_DOCKER={url}")
        yield Engine(url)
        return
    with own_engine() as engine:
        yield engine


@contextmanager
def own_engine() -> Iterator[Engine]:
    """Start an engine of our own, and remove all of it in the end; raise ``Absent`` where that cannot be."""
    if os.geteuid() != 0:
        raise Absent("an own Docker engine needs root; or name one in BACKENDAI_TEST_DOCKER=unix:///path")
    if shutil.which("dockerd") is None:
        raise Absent("dockerd is not installed (apt-get install docker.io)")
    folder = processes.make_folder("docker")
    bridge = f"baitest{os.getpid() % 10**7}"
    pool = 201 + os.getpid() % 40
    engine = Engine(f"unix://{folder}/s", folder)
    try:
        _add_bridge(bridge, f"10.{pool}.0.1/24")
        engine.argv = [
            "dockerd", "--data-root", str(folder / "data"), "--exec-root", str(folder / "exec"),
            "--pidfile", str(folder / "pid"), "-H", engine.url, "--containerd", str(folder / "c"), "--bridge", bridge,
            "--default-address-pool", f"base={POOL.format(pool=pool)},size=26",
            "--live-restore", "--shutdown-timeout", "5"]
        engine.start()
        yield engine
    finally:
        _remove(engine, bridge)


def _add_bridge(bridge: str, address: str) -> None:
    try:
        for argv in (["ip", "link", "add", bridge, "type", "bridge"], ["ip", "address", "add", address, "dev", bridge],
                     ["ip", "link", "set", bridge, "up"]):
            subprocess.run(argv, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise Absent("ip is not installed (apt-get install iproute2)") from None
    except subprocess.CalledProcessError as error:
        raise Absent(f"no network bridge can be made here: {error.stderr.strip()}") from None


def _remove(engine: Engine, bridge: str) -> None:
    assert engine.folder is not None
    networks: list[str] = []
    if engine.process is not None:
        if engine.process.poll() is None:
            try:
                networks = engine.run("network", "ls", "-q", "--filter", "driver=bridge", timeout_s=10).split()
                if ids := engine.run("ps", "-aq", timeout_s=10).split():
                    engine.run("rm", "-f", *ids, timeout_s=60)
                engine.run("network", "prune", "-f", timeout_s=30)
            except (RuntimeError, subprocess.TimeoutExpired):
                networks = []  # it is wedged: what it holds goes below, by force
        processes.end(engine.process, 30)
    if engine.containerd is not None:
        processes.end(engine.containerd)
    processes.kill_below(str(engine.folder))  # shims and containers that a killed engine left
    for link in (bridge, *(f"br-{network}" for network in networks)):
        subprocess.run(["ip", "link", "delete", link], check=False, capture_output=True)
    processes.unmount_below(str(engine.folder))
    shutil.rmtree(engine.folder, ignore_errors=True)
