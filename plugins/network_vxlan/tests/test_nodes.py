"""Several hosts on one machine: each a network namespace, joined by a switch; containers reach each other across them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from backendai.model.network import NetPlan
from backendai.spec.network_v10 import NetView
from backendai_network_vxlan.ends import Ends, names
from backendai_network_vxlan.plan import make_plan

pytestmark = [pytest.mark.system, pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None, reason="making hosts needs root and ip")]
NODE = Path(__file__).with_name("node.py")
POOL = "10.224.0.0/13"


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


class Hosts:
    """Machines on one switch. The first is this one: its own namespaces' tools and engines work there."""

    def __init__(self, count: int) -> None:
        self.tag = f"{os.getpid() % 100000:05d}"
        self.switch = f"sw{self.tag}"
        self.spaces = [f"bai-test-{self.tag}-{number}" for number in range(count)]
        self.addresses = [f"198.51.100.{number + 1}" for number in range(count)]

    def __enter__(self) -> Hosts:
        ip("netns", "add", self.switch)
        ip("-n", self.switch, "link", "add", "br0", "type", "bridge")
        ip("-n", self.switch, "link", "set", "br0", "up")
        for number, (space, address) in enumerate(zip(self.spaces, self.addresses, strict=True)):
            ip("netns", "add", space)
            ip("-n", space, "link", "set", "lo", "up")
            ip("-n", space, "link", "add", "eth0", "type", "veth", "peer", "name", f"p{number}", "netns", self.switch)
            ip("-n", self.switch, "link", "set", f"p{number}", "master", "br0", "up")
            ip("-n", space, "address", "add", f"{address}/24", "dev", "eth0")
            ip("-n", space, "link", "set", "eth0", "up")
        return self

    def __exit__(self, *why: object) -> None:
        for space in (*self.spaces, self.switch):
            subprocess.run(["ip", "netns", "delete", space], check=False)

    def links(self, number: int) -> list[str]:
        """Return the interfaces of a host but for its own."""
        found = json.loads(ip("-n", self.spaces[number], "-json", "link") or "[]")
        return [link["ifname"] for link in found if link["ifname"] not in ("lo", "eth0")]


class Node:
    """A process that is one node of a session."""

    def __init__(self, space: str, plan: NetPlan, agent: str, host: str, runtime: str = "sandbox", image: str = "", **options: Any) -> None:
        inside = ["ip", "netns", "exec", space] if space else []
        self.process = subprocess.Popen([*inside, sys.executable, str(NODE)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        given = {"plan": msgspec.to_builtins(plan), "agent": agent, "host": host, "runtime": runtime, "image": image, "options": options}
        self.say(json.dumps(given))

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self, host: str) -> str:
        self.say(host)
        return self.hear()

    def end(self) -> str:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        said = self.hear()
        self.process.wait(30)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return said


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that containers may mount from."""
    path = Path(tempfile.mkdtemp(prefix="vxlan-", dir="/tmp"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def start() -> Iterator[Callable[..., Node]]:
    """Start nodes that end with the test, whatever becomes of it."""
    nodes: list[Node] = []

    def begin(*given: Any, **more: Any) -> Node:
        nodes.append(Node(*given, **more))
        return nodes[-1]

    yield begin
    for node in nodes:
        if node.process.poll() is None:
            node.end()


def make(network: str, hosts: Hosts, taken: tuple[NetPlan, ...] = ()) -> NetPlan:
    agents = [f"agent{number}" for number in range(len(hosts.spaces))]
    kernels = {f"{'main' if at == 0 else 'sub'}{at or 1}": agent for at, agent in enumerate(agents)}
    return make_plan(NetView(network, kernels, dict(zip(agents, hosts.addresses, strict=True)), taken), POOL, 4096, 1 << 23)


def test_kernels_on_three_nodes_reach_each_other_and_nothing_is_left(folder: Path, start: Callable[..., Node]) -> None:
    with Hosts(3) as hosts:
        plan = make(f"n{os.getpid()}", hosts)
        nodes = [start(space, plan, f"agent{at}", host, state_dir=str(folder / str(at)))
                 for at, (space, host) in enumerate(zip(hosts.spaces, plan.addresses, strict=True))]
        assert [node.hear() for node in nodes] == ["up"] * 3
        assert set(names(plan.vni)) < set(hosts.links(0))
        for node in nodes:
            assert [node.ask(host) for host in plan.addresses] == list(plan.addresses)
        assert [node.end() for node in nodes] == ["down"] * 3
        assert [hosts.links(number) for number in range(3)] == [[], [], []]


def test_two_sessions_on_the_same_nodes_do_not_meet(folder: Path, start: Callable[..., Node]) -> None:
    with Hosts(2) as hosts:
        first = make(f"n{os.getpid()}a", hosts)
        second = make(f"n{os.getpid()}b", hosts, (first,))
        nodes = {(name, at): start(space, plan, f"agent{at}", host, state_dir=str(folder / f"{name}{at}"))
                 for name, plan in (("a", first), ("b", second))
                 for at, (space, host) in enumerate(zip(hosts.spaces, plan.addresses, strict=True))}
        assert [node.hear() for node in nodes.values()] == ["up"] * 4
        assert nodes["a", 0].ask("sub1") == "sub1"
        assert nodes["b", 0].ask("sub1") == "sub1"
        assert "sub1" not in nodes["b", 0].ask(first.addresses["sub1"]).replace(first.addresses["sub1"], "")
        assert [node.end() for node in nodes.values()] == ["down"] * 4


@pytest.mark.docker
def test_a_kernel_in_docker_and_one_in_the_sandbox_reach_each_other(folder: Path, start: Callable[..., Node], docker_engine: Any,
                                                                   base_image: str) -> None:
    with Hosts(2) as hosts:
        hosts.addresses[0] = "198.51.100.100"  # this machine itself, where the engine is
        outer = f"up{hosts.tag}"
        ip("link", "add", outer, "type", "veth", "peer", "name", "uplink", "netns", hosts.switch)
        try:
            ip("-n", hosts.switch, "link", "set", "uplink", "master", "br0", "up")
            ip("address", "add", f"{hosts.addresses[0]}/24", "dev", outer)
            ip("link", "set", outer, "up")
            plan = make(f"n{os.getpid()}d", hosts)
            docker = start("", plan, "agent0", "main1", "docker", base_image, url=docker_engine.url)
            sandbox = start(hosts.spaces[1], plan, "agent1", "sub1", state_dir=str(folder))
            assert [node.hear() for node in (docker, sandbox)] == ["up", "up"]
            assert [docker.ask("sub1"), docker.ask("main1"), sandbox.ask("main1")] == ["sub1", "main1", "main1"]
            assert [docker.end(), sandbox.end()] == ["down", "down"]
            assert not set(names(plan.vni)) & {link["ifname"] for link in json.loads(ip("-json", "link"))}
        finally:
            ip("link", "delete", outer)


def test_agents_of_one_machine_share_an_end_and_the_last_takes_it_away() -> None:
    ends = Ends(4790, 0)
    plan = make_plan(NetView(f"n{os.getpid()}s", {"main1": "a", "sub1": "b"}, {"a": "127.0.0.1", "b": "127.0.0.1"}), POOL, 4096, 1 << 23)
    bridge, device = names(plan.vni)
    assert ends.attach(plan, "a") == ends.attach(plan, "b")
    ends.detach(plan.network, "a")
    assert ends.attached("a") == [] and ends.attached("b") == [plan.network]
    assert bridge in ip("-br", "link")
    ends.detach(plan.network, "b")
    assert bridge not in ip("-br", "link") and device not in ip("-br", "link")


def test_a_half_made_end_is_completed() -> None:
    ends = Ends(4790, 0)
    plan = make_plan(NetView(f"n{os.getpid()}h", {"main1": "a", "sub1": "b"}, {"a": "127.0.0.1", "b": "192.0.2.9"}), POOL, 4096, 1 << 23)
    bridge, device = names(plan.vni)
    try:
        ends.attach(plan, "a")
        ip("link", "delete", device)
        ends.attach(plan, "a")
        said = subprocess.run(["bridge", "fdb", "show", "dev", device], check=True, capture_output=True, text=True).stdout
        assert said.count("192.0.2.9") == 1
    finally:
        ends.detach(plan.network, "a")
    assert bridge not in ip("-br", "link")
