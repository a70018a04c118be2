"""Networks of sessions on a real engine: who is in them, what they leave, and where their addresses come from."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import socket
import subprocess
import tarfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest
from backendai.model.errors import Failure
from backendai.model.network import subnets
from backendai.spec.runtime_v10 import Endpoint, Network, NetworkSpec
from backendai_runtime_docker.sessions import routes, to_engine, to_network

SHOW = r'''
#include <fcntl.h>
#include <unistd.h>
int main(void) { char b[4096]; int n = read(open("/etc/hosts", O_RDONLY), b, sizeof b); return write(1, b, n) != n; }
'''
pytestmark = pytest.mark.docker
REACH = "timeout 2 bash -c 'echo > /dev/tcp/{}/{}' 2>&1"


@pytest.fixture
async def spec(bench: Any) -> AsyncIterator[NetworkSpec]:
    """A network's spec; what is made of it goes after the test."""
    yield NetworkSpec(f"bai-test-{secrets.token_hex(4)}", ("main1", "sub1"), bench.labels)
    for container in await bench.runtime.list(bench.labels):
        await bench.runtime.remove(container.id)
    for network in await bench.runtime.list_networks(bench.labels):
        await bench.runtime.remove_network(network.id)


@pytest.fixture
def bridge() -> Iterator[str]:
    """A bridge of the node, as a network plugin would make one."""
    name = f"baitest{secrets.token_hex(3)}"
    if os.geteuid() != 0:
        pytest.skip("making a bridge needs root")
    subprocess.run(["ip", "link", "add", name, "type", "bridge"], check=True)
    subprocess.run(["ip", "link", "set", name, "up"], check=True)
    yield name
    subprocess.run(["ip", "link", "delete", name], check=True)


async def member(bench: Any, made: Network, host: str, **more: Any) -> str:
    """Run a container in a network."""
    id: str = await bench.run(net=Endpoint(made.id, made.addresses[host]), hosts=made.addresses, hostname=host, **more)
    return id


def ip(*words: str) -> list[list[str]]:
    """Return the words of each line that ``ip`` prints."""
    said = subprocess.run(["ip", "-o", *words], check=True, capture_output=True, text=True).stdout
    return [line.split() for line in said.splitlines()]


def links() -> list[str]:
    return [words[1] for words in ip("link")]


async def test_the_node_is_no_member_of_a_private_network(bench: Any, spec: NetworkSpec) -> None:
    made = await bench.runtime.create_network(spec)
    id = await member(bench, made, "main1")
    with socket.create_server(("", 0)) as server:
        own = [words[3].partition("/")[0] for words in ip("-4", "address")]
        first = str(IPv4Address(made.addresses["main1"]) - 1)
        for address in {*own, first} - {"127.0.0.1"}:
            code, _, _ = await bench.inside(id, "sh", "-c", REACH.format(address, server.getsockname()[1]))
            assert code != 0, f"it reached the node at {address}"


async def test_a_network_that_leads_outward_reaches_the_node_s_side(bench: Any, spec: NetworkSpec) -> None:
    made = await bench.runtime.create_network(replace(spec, outward=True))
    id = await member(bench, made, "main1", network="outward")
    with socket.create_server(("", 0)) as server:
        gateway = str(IPv4Address(made.addresses["main1"]) - 1)
        assert (await bench.inside(id, "sh", "-c", REACH.format(gateway, server.getsockname()[1])))[0] == 0


async def test_nothing_is_left_on_the_node(bench: Any, spec: NetworkSpec) -> None:
    before = links()
    made = await bench.runtime.create_network(spec)
    id = await member(bench, made, "main1")
    assert len(links()) > len(before)
    await bench.runtime.remove(id)
    await bench.runtime.remove_network(made.id)
    assert links() == before


@pytest.mark.skipif(shutil.which("cc") is None, reason="the image's one program is built here")
async def test_names_are_known_in_an_image_with_one_program(bench: Any, spec: NetworkSpec, docker_engine: Any, tmp_path: Path) -> None:
    (tmp_path / "show.c").write_text(SHOW)
    await asyncio.to_thread(subprocess.run, ["cc", "-static", "-o", str(tmp_path / "show"), str(tmp_path / "show.c")], check=True)
    with tarfile.open(tmp_path / "bare.tar", "w") as archive:
        archive.add(tmp_path / "show", "show")
    image = f"bai-test-bare:{os.getpid()}"
    await asyncio.to_thread(docker_engine.run, "import", str(tmp_path / "bare.tar"), image)
    try:
        made = await bench.runtime.create_network(spec)
        id = await bench.run("/show", image=image, net=Endpoint(made.id, made.addresses["main1"]), hosts=made.addresses, hostname="main1")
        said = (await bench.output(id))[1].decode()
        assert {(address, host) for host, address in made.addresses.items()} <= {tuple(line.split()) for line in said.splitlines()}
        await bench.runtime.remove(id)
    finally:
        await bench.runtime.remove_image(image)


async def test_addresses_that_somebody_has_are_passed_over(bench: Any, spec: NetworkSpec, with_runtime: Any) -> None:
    pool = "10.247.255.0/28"
    small = await with_runtime(pool=pool)
    names = [f"{spec.name}-{number}" for number in range(3)]
    first, second = [await small.create_network(replace(spec, name=name)) for name in names[:2]]
    assert not set(first.addresses.values()) & set(second.addresses.values())
    with pytest.raises(Failure, match=r"No addresses are free in 10\.247\.255\.0/28") as caught:
        await small.create_network(replace(spec, name=names[2]))
    assert caught.value.code == "unavailable"


async def test_a_bridge_that_is_there_is_used_and_left(bench: Any, spec: NetworkSpec, bridge: str) -> None:
    addresses = {"main1": "10.247.254.3", "sub1": "10.247.254.4"}
    made = await bench.runtime.create_network(
        replace(spec, bridge=bridge, subnet="10.247.254.0/28", gateway="10.247.254.1", mtu=1400, addresses=addresses))
    assert made.addresses == addresses
    main, sub = [await member(bench, made, host) for host in spec.hosts]
    assert (await bench.inside(main, "cat", "/sys/class/net/eth0/mtu"))[1] == b"1400\n"
    assert len(ip("link", "show", "master", bridge)) == 2
    code, out, _ = await bench.inside(main, "sh", "-c", REACH.format("sub1", 9))
    assert b"refused" in out, f"{code}: nobody listens there, and it says so"
    for id in (main, sub):
        await bench.runtime.remove(id)
    await bench.runtime.remove_network(made.id)
    assert f"{bridge}:" in links()


async def test_another_agent_s_plugin_finds_the_network(bench: Any, spec: NetworkSpec, with_runtime: Any) -> None:
    made = await bench.runtime.create_network(spec)
    other = await with_runtime()
    assert await other.create_network(spec) == made
    assert list(await other.list_networks(bench.labels)) == [made]


def test_a_body_says_again_what_it_was_made_of() -> None:
    spec = NetworkSpec("n", ("main1", "sub1"), {"a": "b"})
    body = to_engine(spec, IPv4Network("10.0.0.0/29"))
    assert to_network(body) == Network("n", "n", {"a": "b"}, {"main1": "10.0.0.2", "sub1": "10.0.0.3"})
    assert body["Internal"] and not to_engine(replace(spec, outward=True), IPv4Network("10.0.0.0/29"))["Internal"]


def test_routes_of_the_node_are_taken(tmp_path: Path) -> None:
    table = tmp_path / "route"
    table.write_text("Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
                     "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
                     "eth0\t0000E80A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n")
    assert routes(table) == [IPv4Network("10.232.0.0/16")]
    assert not next(subnets("10.232.0.0/15", 6, "x", map(str, routes(table)))).overlaps(IPv4Network("10.232.0.0/16"))
    assert routes(tmp_path / "absent") == []
