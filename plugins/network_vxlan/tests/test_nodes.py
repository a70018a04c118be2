"""Several hosts on one machine: each a network namespace, joined by a switch; containers reach each other across them."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from backendai.model.errors import Failure
from backendai.model.network import NetPlan
from backendai.spec.network_v10 import NetView
from backendai_network_vxlan.ends import Ends, names
from backendai_network_vxlan.plan import make_plan
from backendai_runtime_sandbox.build import build_shim

from tests.parts.hosts import Hosts, ip

pytestmark = [pytest.mark.system, pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None, reason="making hosts needs root and ip")]
NODE = Path(__file__).with_name("node.py")
POOL = "10.224.0.0/13"


class Node:
    """A process that is one node of a session."""

    def __init__(self, space: str, plan: NetPlan, agent: str, host: str, runtime: str = "sandbox", image: str = "", **options: Any) -> None:
        inside = Hosts.inside(space) if space else []
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
    (path / "0").mkdir(mode=0o711)
    asyncio.run(build_shim(_made(path / "0" / "programs")))  # once, for many at once would take longer than a probe may
    yield path
    shutil.rmtree(path)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def state(folder: Path, name: str) -> str:
    """Return the folder of a sandbox that need not build its shim."""
    if name != "0":
        shutil.copytree(folder / "0" / "programs", folder / name / "programs")
        (folder / name).chmod(0o711)
    return str(folder / name)


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


def make(network: str, hosts: Hosts, taken: tuple[NetPlan, ...] = (), outward: bool = False) -> NetPlan:
    agents = [f"agent{number}" for number in range(len(hosts.spaces))]
    kernels = {f"{'main' if at == 0 else 'sub'}{at or 1}": agent for at, agent in enumerate(agents)}
    return make_plan(NetView(network, kernels, dict(zip(agents, hosts.addresses, strict=True)), taken, outward), POOL, 4096, 1 << 23)


def test_kernels_on_three_nodes_reach_each_other_and_nothing_is_left(folder: Path, start: Callable[..., Node]) -> None:
    with Hosts(3) as hosts:
        plan = make(f"n{os.getpid()}", hosts)
        nodes = [start(space, plan, f"agent{at}", host, state_dir=state(folder, str(at)))
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
        nodes = {(name, at): start(space, plan, f"agent{at}", host, state_dir=state(folder, f"{name}{at}"))
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
        hosts.addresses[0] = hosts.take_part()  # this machine itself, where the engine is
        plan = make(f"n{os.getpid()}d", hosts)
        docker = start("", plan, "agent0", "main1", "docker", base_image, url=docker_engine.url)
        sandbox = start(hosts.spaces[1], plan, "agent1", "sub1", state_dir=state(folder, "0"))
        assert [node.hear() for node in (docker, sandbox)] == ["up", "up"]
        assert [docker.ask("sub1"), docker.ask("main1"), sandbox.ask("main1")] == ["sub1", "main1", "main1"]
        assert [docker.end(), sandbox.end()] == ["down", "down"]
        assert not set(names(plan.vni)) & {link["ifname"] for link in json.loads(ip("-json", "link"))}


@pytest.mark.docker
@pytest.mark.skipif(not (shutil.which("slirp4netns") and os.access("/dev/net/tun", os.W_OK)), reason="the sandbox has no way out here")
def test_a_session_across_nodes_may_reach_out(folder: Path, start: Callable[..., Node], docker_engine: Any, base_image: str) -> None:
    with Hosts(2) as hosts:
        hosts.addresses[0] = hosts.take_part()
        plan = make(f"n{os.getpid()}o", hosts, outward=True)
        docker = start("", plan, "agent0", "main1", "docker", base_image, url=docker_engine.url)
        sandbox = start(hosts.spaces[1], plan, "agent1", "sub1", state_dir=state(folder, "0"))
        assert [node.hear() for node in (docker, sandbox)] == ["up", "up"]
        assert [docker.ask("sub1"), sandbox.ask("main1")] == ["sub1", "main1"]
        assert "refused" in docker.ask(hosts.addresses[1]), "another machine's own address, where nobody listens"
        assert [docker.end(), sandbox.end()] == ["down", "down"]


def test_nodes_may_have_addresses_of_version_6() -> None:
    ends = Ends(4790, 0)
    plan = make_plan(NetView(f"n{os.getpid()}6", {"main1": "a", "sub1": "b"}, {"a": "::1", "b": "2001:db8::9"}), POOL, 4096, 1 << 23)
    try:
        assert ends.attach(plan, "a").mtu <= 65536 - 70
        assert "2001:db8::9" in subprocess.run(["bridge", "fdb", "show", "dev", names(plan.vni)[1]], check=True, capture_output=True,
                                               text=True).stdout
    finally:
        ends.detach(plan.network, "a")


def test_a_node_says_when_it_does_not_have_the_address() -> None:
    view = NetView(f"n{os.getpid()}x", {"main1": "a", "sub1": "b"}, {"a": "203.0.113.7", "b": "203.0.113.8"})
    plan = make_plan(view, POOL, 4096, 1 << 23)
    with pytest.raises(Failure, match=r"No interface of this node has the address 203\.0\.113\.7"):
        Ends(4790, 0).attach(plan, "a")


def test_a_number_that_another_network_still_has_here_is_waited_for() -> None:
    ends = Ends(4790, 0)
    plan = make_plan(NetView(f"n{os.getpid()}p", {"main1": "a", "sub1": "b"}, {"a": "127.0.0.1", "b": "127.0.0.1"}), POOL, 4096, 1 << 23)
    ends.attach(plan, "a")
    try:
        with pytest.raises(Failure, match="is still in use here") as caught:
            ends.attach(replace(plan, network="another"), "a")
        assert caught.value.code == "unavailable", "so that it is tried again"
    finally:
        ends.detach(plan.network, "a")


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


@pytest.mark.parametrize("lost", [0, 1], ids=["bridge", "device"])
def test_an_end_of_which_an_engine_took_a_part_is_taken_away(lost: int) -> None:
    ends = Ends(4790, 0)
    plan = make_plan(NetView(f"n{os.getpid()}l", {"main1": "a", "sub1": "b"}, {"a": "127.0.0.1", "b": "192.0.2.9"}), POOL, 4096, 1 << 23)
    ends.attach(plan, "a")
    ip("link", "delete", names(plan.vni)[lost])
    assert ends.attached("a") == [plan.network]
    ends.detach(plan.network, "a")
    assert not set(names(plan.vni)) & {link["ifname"] for link in json.loads(ip("-json", "link"))}


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
