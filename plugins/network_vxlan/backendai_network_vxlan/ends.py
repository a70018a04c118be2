"""A node's ends: a bridge and a VXLAN device on it for each network, made and found by ``ip``.

The node remembers: the alias of both says which network it is and for which agents it was made. The other nodes are entered as
destinations of what is for everybody; who is behind which node is then learned from what comes.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backendai.model.errors import Failure
from backendai.model.network import NetPlan
from backendai.spec.network_v10 import NetEnd

WORD = "backendai"  # the first of an alias; then the network and the agents
LOCK = Path("/run/backendai-vxlan.lock")
COMMAND_S = 10.0
OVERHEAD, OVERHEAD_6 = 50, 70  # bytes: Ethernet, IP, UDP and VXLAN headers (RFC 7348), over IPv4 and IPv6
EVERYBODY = "00:00:00:00:00:00"
LEAST, MOST = 1280, 65000  # bytes of an MTU
NEEDS = "networks across nodes need root and iproute2 (`apt-get install iproute2`)"


@dataclass(frozen=True, slots=True)
class End:
    """An end as it is found. bridge: its name, also where only the device is left. agents: for whom it was made."""

    bridge: str
    network: str
    agents: tuple[str, ...]


def names(vni: int) -> tuple[str, str]:
    """Return the names of the bridge and of the VXLAN device; an interface's has at most 15 letters."""
    return f"bvb{vni:06x}", f"bvx{vni:06x}"


class Ends:
    """Every end on this node. port: UDP. mtu: inside, 0 for what fits."""

    def __init__(self, port: int, mtu: int) -> None:
        self._port = port
        self._mtu = mtu
        self._ip, self._bridge = (shutil.which(name) or "" for name in ("ip", "bridge"))
        self._iptables = shutil.which("iptables") or ""

    def attach(self, plan: NetPlan, agent: str) -> NetEnd:
        """Make what is not there yet of the end of *agent*'s node."""
        self._need()
        own = plan.nodes.get(agent)
        if own is None:
            raise Failure("internal", f"The plan of the network {plan.network} has no place for this agent; ask your administrator.")
        bridge, device = names(plan.vni)
        mtu = self._mtu or self._fitting(own)
        with self._alone():
            there = {end.bridge: end for end in self._ends()}
            self._check(there.get(bridge), plan)
            agents = sorted({agent, *(there[bridge].agents if bridge in there else ())})
            present = self._links()
            batch = [] if bridge in present else [f"link add {bridge} type bridge"]
            if device not in present:
                batch += [f"link add {device} mtu {mtu} type vxlan id {plan.vni} dstport {self._port} local {own}"]
            batch += [f"link set {link} alias '{' '.join((WORD, plan.network, *agents))}'" for link in (bridge, device)]
            batch += [f"link set {device} addrgenmode none", f"link set {bridge} addrgenmode none",  # the node is no member
                      f"link set {device} master {bridge}", f"link set {device} up", f"link set {bridge} up"]
            self._run([self._ip, "-batch", "-"], "\n".join(batch))
            known = self._destinations(device)
            others = sorted(set(plan.nodes.values()) - {own} - known)
            if others:
                self._run([self._bridge, "-batch", "-"], "\n".join(f"fdb append {EVERYBODY} dev {device} dst {other}" for other in others))
            self._let_through(bridge)
        return NetEnd(bridge, mtu)

    def detach(self, network: str, agent: str) -> None:
        """Take *agent* off an end; with the last one it goes."""
        self._need()
        with self._alone():
            for end in self._ends():
                if end.network != network or agent not in end.agents:
                    continue
                others = [one for one in end.agents if one != agent]
                if not others:
                    self._shut(end.bridge)
                for link in sorted(self._links() & {end.bridge, end.bridge.replace("bvb", "bvx", 1)}):  # an engine may have taken one
                    change = ["set", link, "alias", " ".join((WORD, network, *others))] if others else ["delete", link]
                    self._run([self._ip, "link", *change])

    def attached(self, agent: str) -> Sequence[str]:
        """Return the networks that have an end here for *agent*."""
        self._need()
        return sorted(end.network for end in self._ends() if agent in end.agents)

    def _need(self) -> None:
        if not (self._ip and self._bridge and os.geteuid() == 0):
            raise Failure("unsupported", f"This node cannot take part: {NEEDS}.")

    def _check(self, end: End | None, plan: NetPlan) -> None:
        if end is not None and end.network != plan.network:
            raise Failure("unavailable", f"The number {plan.vni} is still in use here, by the network {end.network}; it is tried again.")

    def _ends(self) -> Iterator[End]:
        found = {}
        for link in self._show("link", "show"):
            words = str(link.get("ifalias", "")).split()
            if words[:1] == [WORD] and len(words) > 2:
                bridge = link["ifname"].replace("bvx", "bvb", 1)
                found[bridge] = End(bridge, words[1], tuple(words[2:]))
        yield from found.values()

    def _links(self) -> set[str]:
        return {link["ifname"] for link in self._show("link", "show")}

    def _destinations(self, device: str) -> set[str]:
        said = self._run([self._bridge, "-json", "fdb", "show", "dev", device])
        return {entry["dst"] for entry in json.loads(said or "[]") if entry.get("mac") == EVERYBODY and "dst" in entry}

    def _fitting(self, own: str) -> int:
        """Return the MTU inside, by that of the interface that has our address."""
        for link in self._show("address", "show"):
            if any(one.get("local") == own for one in link.get("addr_info", ())):
                return max(LEAST, min(MOST, int(link["mtu"]) - (OVERHEAD_6 if ":" in own else OVERHEAD)))
        raise Failure("unsupported", f"No interface of this node has the address {own}; start the agent with another `--address`.")

    def _let_through(self, bridge: str) -> None:
        """Let the firewall pass what stays on the bridge: where it looks into bridges, as it does for Docker, it may drop that."""
        rule = _rule(bridge)
        if self._iptables and not self._succeeds([self._iptables, "-w", "-C", *rule]):
            self._succeeds([self._iptables, "-w", "-I", *rule])  # without a firewall there is nothing to let through

    def _shut(self, bridge: str) -> None:
        if self._iptables:
            while self._succeeds([self._iptables, "-w", "-D", *_rule(bridge)]):
                pass  # once for each time that it was let through

    def _show(self, *words: str) -> list[Mapping[str, Any]]:
        found: list[Mapping[str, Any]] = json.loads(self._run([self._ip, "-json", *words]) or "[]")
        return [link for link in found if link]

    def _run(self, argv: Sequence[str], given: str = "") -> str:
        done = self._execute(argv, given)
        if done.returncode:
            said = (done.stderr or done.stdout).strip()
            raise Failure("runtime-fault", f"The node's network could not be changed: {said}. Ask your administrator to look at it.",
                          detail=f"{argv}\n{given}\n{said}")
        return done.stdout

    def _succeeds(self, argv: Sequence[str]) -> bool:
        return self._execute(argv, "").returncode == 0

    def _execute(self, argv: Sequence[str], given: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(argv, input=given, capture_output=True, text=True, timeout=COMMAND_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Failure("unavailable", f"{Path(argv[0]).name} does not answer on this node; ask your administrator to look at it.",
                          detail=str(error)) from error

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other agents of this machine from changing the same ends."""
        fd = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)


def _rule(bridge: str) -> list[str]:
    return ["FORWARD", "-i", bridge, "-o", bridge, "-j", "ACCEPT"]
