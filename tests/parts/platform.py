"""A whole platform in a folder of its own, and the ``bai`` command against it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.parts import processes

BAI = str(Path(sys.executable).with_name("bai"))
READY_S = 30.0
FINAL = ("TERMINATED", "CANCELLED", "FAILED")
LABEL = "ai.backendai.cluster"


@dataclass(frozen=True, slots=True)
class Done:
    """What became of a command. code: its exit status."""

    code: int
    out: bytes
    err: bytes

    @property
    def text(self) -> str:
        return self.out.decode()

    @property
    def said(self) -> str:
        return self.err.decode(errors="replace")


@dataclass
class Platform:
    """One cluster. runtime: what its agents use. image: what sessions run, empty for the runtime's own choice.

    names: agents, beside a manager of its own; none for ``bai up``, where all is one process. db: the manager's database URL.
    inside: for an agent that is on another host, what runs a command there.
    """

    runtime: str
    image: str = ""
    docker: str = ""
    names: tuple[str, ...] = ()
    db: str = ""
    options: tuple[str, ...] = ()
    inside: Mapping[str, Sequence[str]] = field(default_factory=dict)
    folder: Path = field(default_factory=lambda: processes.make_folder("up"))
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    url: str = ""
    token: str = ""
    agent_tokens: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.chmod(0o755)
        (self.folder / "home").mkdir(exist_ok=True)

    @property
    def env(self) -> dict[str, str]:
        """The environment of every process of ours: no settings of the user's, and a mark by which to find them again."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("BACKENDAI_", "BAI_", "XDG_"))}
        found = {"BACKENDAI_URL": self.url, "BACKENDAI_TOKEN": self.token} if self.names else {}
        return {**kept, **({"DOCKER_HOST": self.docker} if self.docker else {}), "HOME": str(self.folder / "home"), **found}

    # --- its processes ---

    def start(self) -> None:
        """Start what does not run, and wait until it answers and has its agents."""
        for role in self.roles:
            if role not in self.running:
                self.revive(role)
        processes.until(self.ready, READY_S, f"the platform in {self.folder}")

    @property
    def roles(self) -> tuple[str, ...]:
        return ("manager", *self.names) if self.names else ("up",)

    def revive(self, role: str) -> None:
        """Start one process that does not run."""
        if role in self.names:
            if role not in self.agent_tokens:
                self.agent_tokens[role] = self.rest("POST", "/v1/tokens", {"name": role, "agent": True})["token"]
            self._spawn(role, "serve", "agent", "--manager", self.url, "--token", self.agent_tokens[role], "--name", role,
                        "--data", str(self.folder / role), "--runtime", self.runtime)
            return
        listen = self.url.removeprefix("http://") or "127.0.0.1:0"
        argv = ["up", "--runtime", self.runtime] if role == "up" else ["serve", "manager", *(["--db", self.db] if self.db else [])]
        self._spawn(role, *argv, "--data", str(self.folder / role), "--listen", listen, *self.options)
        self._learn(role)

    def _spawn(self, role: str, *argv: str) -> None:
        self.running[role] = processes.start([*self.inside.get(role, ()), BAI, *argv], self.folder / f"{role}.log", env=self.env)

    def _learn(self, role: str) -> None:
        """Read the address, and at the first start the administrator's token, from what the process prints."""
        def told() -> bool:
            process, said = self.running[role], self.log(role)
            if process.poll() is not None:
                raise RuntimeError(f"bai {role} ended with {process.returncode}: {said[-2000:]}")
            if not self.url and (found := re.search(r"http://[\w.]+:\d+", said)):
                self.url = found[0]
            if not self.token and (found := re.search(r"\bbai_[\w-]{30,}", said)):
                self.token = found[0]
            return bool(self.url and self.token)

        processes.until(told, READY_S, f"bai {role} to say its address and token")

    def log(self, role: str) -> str:
        return (self.folder / f"{role}.log").read_text(errors="replace")

    def ready(self) -> bool:
        """Tell whether the manager answers and every agent is connected and healthy."""
        for role, process in self.running.items():
            if process.poll() is not None:
                raise RuntimeError(f"bai {role} ended with {process.returncode}: {self.log(role)[-2000:]}")
        try:
            agents = self.rest("GET", "/v1/agents")["items"]
        except OSError:
            return False
        healthy = [agent for agent in agents if agent["connected"] and not agent["why"]]
        return len(healthy) >= max(1, len(self.names))

    def kill(self, role: str, number: int = signal.SIGKILL) -> None:
        """End one process by a signal; it stays down until ``start``."""
        process = self.running.pop(role)
        process.send_signal(number)
        process.wait(60)

    def stop(self) -> None:
        """End every process politely."""
        for role in list(self.running)[::-1]:
            processes.end(self.running.pop(role), 30)

    def remove(self, sweep: bool = True) -> list[str]:
        """Remove all sessions unless *sweep* is off, stop, and delete the folder; return what was left where nothing should be."""
        left: list[str] = []
        try:
            if self.url and sweep:
                self.start()
                self.sweep()
                left += self.kept()
            self.stop()
            processes.until(lambda: not processes.mentioning(str(self.folder)), 10, "all processes to end")
        except TimeoutError:
            left += [f"process {pid}: {argv}" for pid, argv in processes.mentioning(str(self.folder)).items()]
        finally:
            for role in list(self.running):
                self.kill(role)
            left += [f"mount {point}" for point in processes.mounts_below(str(self.folder))]
            processes.kill_below(str(self.folder))
            processes.unmount_below(str(self.folder))
            shutil.rmtree(self.folder, ignore_errors=True)
        return left

    def sweep(self) -> None:
        """Stop and remove every session."""
        for session in self.sessions():
            self.rest("DELETE", f"/v1/sessions/{session['id']}?force=true")
        processes.until(lambda: not self.sessions(), 60, "all sessions to be removed", 0.2)

    def kept(self) -> list[str]:
        """Return what agents and engine still keep of sessions; nothing, once all are removed."""
        def look() -> list[str]:
            names = ("kernels", "logs", "scratch", "containers", "networks")
            files = [str(path) for name in names for parent in self.folder.glob(f"*/**/{name}") for path in parent.iterdir()]
            return [*files, *self.cgroups(), *self.containers()]

        try:
            processes.until(lambda: not look(), 20, "everything of the sessions to be removed", 0.2)
        except TimeoutError:
            return look()
        return []

    def cgroups(self) -> list[str]:
        """Return the control groups of sandboxes; the folder they are in is named after where the sandbox keeps its things."""
        labels = [f"{zlib.crc32(str(root).encode()):08x}" for root in self.folder.glob("*/**/sandbox")]
        return [str(group) for label in labels for group in Path("/sys/fs/cgroup").glob(f"**/backendai-{label}/*") if group.is_dir()]

    def containers(self) -> list[str]:
        """Return the ids of our containers, and of networks of sessions, on the Docker engine."""
        if not self.docker:
            return []
        return [id for what in (["ps", "-a"], ["network", "ls"]) for id in subprocess.run(
            ["docker", *what, "-q", "--no-trunc", "--filter", f"label={LABEL}"], check=True, capture_output=True, text=True, env=self.env,
            timeout=60).stdout.split()]

    # --- the command and the API ---

    def bai(self, *argv: str, code: int | None = 0, stdin: bytes = b"", timeout_s: float = 90.0,
            env: Mapping[str, str] | None = None) -> Done:
        """Run ``bai``; code: the exit status that it must have, None for any."""
        ran = subprocess.run([BAI, *argv], check=False, input=stdin, capture_output=True, timeout=timeout_s,
                             env={**self.env, **(env or {})}, cwd=self.folder / "home")
        done = Done(ran.returncode, ran.stdout, ran.stderr)
        assert code is None or done.code == code, f"bai {' '.join(argv)} ended with {done.code}: {done.said[-2000:]} {done.out[-500:]!r}"
        return done

    def spawn(self, *argv: str) -> subprocess.Popen[bytes]:
        """Start ``bai`` and return it, its streams as pipes."""
        return subprocess.Popen([BAI, *argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=self.env)

    def ask(self, *argv: str) -> Any:
        """Run ``bai ... --json`` and return what it prints."""
        return json.loads(self.bai(*argv, "--json").out)

    def on(self) -> tuple[str, ...]:
        """Return the options that choose the image."""
        return ("-i", self.image) if self.image else ()

    def run(self, script: str, *options: str, code: int | None = 0, timeout_s: float = 90.0) -> Done:
        """Run a shell script as a batch session."""
        return self.bai("run", *self.on(), "-r", "cpu=0.1,mem=64m", *options, "--", "sh", "-c", script, code=code, timeout_s=timeout_s)

    def detach(self, script: str, *options: str) -> str:
        """Start a batch session in the background and return its id."""
        return self.run(script, "-d", *options).text.splitlines()[-1]

    def begin(self, *options: str) -> str:
        """Start an interactive session and return its id."""
        return self.bai("start", *self.on(), "-r", "cpu=0.1,mem=64m", *options).text.splitlines()[-1]

    def rest(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """Call the API; return the decoded answer, and raise ``urllib.error.HTTPError`` for an error."""
        data = None if body is None else json.dumps(body).encode()
        head = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json",
                **{name.replace("_", "-"): value for name, value in headers.items()}}
        with urllib.request.urlopen(urllib.request.Request(self.url + path, data, head, method=method), timeout=90) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def problem(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """Call the API and return the problem document that it answers with."""
        try:
            answer = self.rest(method, path, body)
        except urllib.error.HTTPError as error:
            problem: dict[str, Any] = json.load(error)
            return problem
        raise AssertionError(f"{method} {path} was accepted: {answer}")

    def ask_for(self, script: str, headers: Mapping[str, str] | None = None, **more: Any) -> dict[str, Any]:
        """Ask for a batch session by the API and return it; headers: with ``_`` for ``-``."""
        body = {"type": "batch", "command": ["sh", "-c", script], "slots": {"cpu": 0.1, "mem": "64m"}, **more}
        if self.image:
            body.setdefault("image", self.image)
        session: dict[str, Any] = self.rest("POST", "/v1/sessions", body, **(headers or {}))
        return session

    def session(self, name: str) -> dict[str, Any]:
        """Return a session by its id or name."""
        found: dict[str, Any] = self.rest("GET", f"/v1/sessions/{name}")
        return found

    def wait(self, name: str, state: str = "final", within_s: float = 60.0) -> dict[str, Any]:
        """Wait until a session is ``running`` or ``final`` and return it."""
        found: dict[str, Any] = {}

        def there() -> bool:
            found.update(self.rest("GET", f"/v1/sessions/{name}?wait={state}&timeout_s=10"))
            return found["state"] in FINAL or (state == "running" and found["state"] == "RUNNING")

        processes.until(there, within_s, f"session {name} to be {state}")
        return found

    def sessions(self) -> list[dict[str, Any]]:
        """Return every session there is."""
        found: list[dict[str, Any]] = []
        cursor = ""
        while True:
            page = self.rest("GET", f"/v1/sessions?all=true&limit=100{cursor}")
            found += page["items"]
            if not page["next"]:
                return found
            cursor = f"&cursor={page['next']}"
