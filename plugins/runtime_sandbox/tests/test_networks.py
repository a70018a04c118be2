"""Networks of sessions: where they are, what they leave, and what they do where there are no tools."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from backendai.model.errors import Failure
from backendai.spec.runtime_v10 import Endpoint, Network, NetworkSpec
from backendai_runtime_sandbox.box import lock_holder
from backendai_runtime_sandbox.config import Config
from backendai_runtime_sandbox.plugin import Sandbox
from sandbox_inside import run, spec

pytestmark = pytest.mark.system
HOSTS = ("main1", "sub1")
SERVE = """
import socket, sys
server = socket.create_server((socket.gethostname(), 7000))
print("listening", flush=True)
while True:
    connection, _ = server.accept()
    connection.sendall(socket.gethostname().encode())
    connection.close()
"""
SHOW = r'''
#include <fcntl.h>
#include <unistd.h>
int main(void) { char b[4096]; int n = read(open("/etc/hosts", O_RDONLY), b, sizeof b); return write(1, b, n) != n; }
'''
ASK = "import socket, sys; print(socket.create_connection((sys.argv[1], 7000), timeout=3).recv(99).decode())"
tools = pytest.mark.skipif(not (shutil.which("ip") and shutil.which("nsenter")), reason="without ip and nsenter there are no bridges")


def network(**fields: Any) -> NetworkSpec:
    return replace(NetworkSpec(f"net-{secrets.token_hex(4)}", HOSTS, {"a": "b"}), **fields)


def member(made: Network, host: str) -> Mapping[str, Any]:
    """Return the fields that put a container into a network."""
    return {"net": Endpoint(made.id, made.addresses[host]), "hosts": made.addresses, "hostname": host}


async def serve(sandbox: Sandbox, made: Network, host: str) -> str:
    """Run a container that tells its name to whoever asks; return its id once it listens."""
    id = await sandbox.create(replace(spec("", **member(made, host)), argv=("python3", "-c", SERVE)))
    await sandbox.start(id)
    async for _ in sandbox.logs(id, 0, True):
        return id
    raise AssertionError("it ended before it listened")


async def ask(sandbox: Sandbox, id: str, host: str) -> str:
    """Return what a container is told by another."""
    process = await sandbox.exec(id, ("python3", "-c", ASK, host), {}, None, None, False)
    said = await process.read()
    await process.close()
    return said[1].decode().strip() if said else ""


def links() -> str:
    return subprocess.run(["ip", "-br", "link"], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def bridge() -> Iterator[str]:
    """A bridge of the node, as a network plugin would make one."""
    name = f"sbtest{secrets.token_hex(3)}"
    if os.geteuid() != 0 or subprocess.run(["ip", "link", "add", name, "type", "bridge"], check=False).returncode:
        pytest.skip("making a bridge needs root and ip")
    subprocess.run(["ip", "link", "set", name, "up"], check=True)
    rule = ["FORWARD", "-i", name, "-o", name, "-j", "ACCEPT"]  # a firewall may look into bridges, as it does for Docker
    open_up = shutil.which("iptables") is not None and subprocess.run(["iptables", "-I", *rule], check=False).returncode == 0
    yield name
    if open_up:
        subprocess.run(["iptables", "-D", *rule], check=True)
    subprocess.run(["ip", "link", "delete", name], check=True)


@tools
async def test_each_container_has_ports_of_its_own_and_nothing_is_seen_on_the_node(sandbox: Sandbox) -> None:
    before = await asyncio.to_thread(links)
    made = await sandbox.create_network(network())
    ids = [await serve(sandbox, made, host) for host in HOSTS]
    assert [await ask(sandbox, id, host) for id in ids for host in HOSTS] == [*HOSTS, *HOSTS]
    assert await asyncio.to_thread(links) == before
    for id in ids:
        await sandbox.remove(id)
    await sandbox.remove_network(made.id)


async def test_without_tools_they_share_a_namespace(sandbox: Sandbox) -> None:
    networks = (await sandbox._get()).networks
    networks._ip = ""
    made = await sandbox.create_network(network())
    assert all(address.startswith("127.") for address in made.addresses.values())
    ids = [await serve(sandbox, made, host) for host in HOSTS]
    assert [await ask(sandbox, id, host) for id in ids for host in HOSTS] == [*HOSTS, *HOSTS]
    stranger = await run(sandbox, f"python3 -c '{ASK}' {made.addresses['main1']}")
    assert "refused" in stranger.err
    for id in ids:
        await sandbox.remove(id)
    await sandbox.remove_network(made.id)


async def test_without_tools_there_is_no_way_out(sandbox: Sandbox) -> None:
    if "network-outward" not in (await sandbox.probe()).features:
        pytest.skip("there is none in any case")
    (await sandbox._get()).networks._ip = ""
    made = await sandbox.create_network(network(outward=True))
    with pytest.raises(Failure, match="have no way out here: it needs root and the programs ip"):
        await sandbox.create(spec("true", network="outward", **member(made, "main1")))
    await sandbox.remove_network(made.id)


@tools
async def test_a_network_may_lead_outward(sandbox: Sandbox) -> None:
    if "network-outward" not in (await sandbox.probe()).features:
        pytest.skip("there is no slirp4netns here, or no access to /dev/net/tun")
    made = await sandbox.create_network(network(outward=True))
    id = await serve(sandbox, made, "sub1")
    own = (await asyncio.to_thread(subprocess.run, ["hostname", "-I"], capture_output=True, text=True, check=True)).stdout.split()
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        script = f"python3 -c '{ASK}' sub1; python3 -c 'import socket; socket.create_connection((\"{own[0]}\", {port}), 5); print(\"out\")'"
        said = await run(sandbox, script, network="outward", **member(made, "main1"))
    assert said.out == "sub1\nout\n", said.err
    await sandbox.remove(id)
    await sandbox.remove_network(made.id)


@tools
@pytest.mark.skipif(os.geteuid() != 0, reason="only root has named namespaces")
async def test_a_way_out_takes_nobody_s_named_namespace_away(sandbox: Sandbox) -> None:
    """slirp4netns unmounts all that it sees, and where mounts are shared, as `ip netns` makes them, that reaches the node."""
    if "network-outward" not in (await sandbox.probe()).features:
        pytest.skip("there is no slirp4netns here, or no access to /dev/net/tun")
    name = f"sbtest-{secrets.token_hex(4)}"
    await asyncio.to_thread(subprocess.run, ["ip", "netns", "add", name], check=True)
    try:
        assert (await run(sandbox, "true", network="outward")).code == 0
        assert (await asyncio.to_thread(subprocess.run, ["ip", "-n", name, "link"], check=False, capture_output=True)).returncode == 0
    finally:
        await asyncio.to_thread(subprocess.run, ["ip", "netns", "delete", name], check=False, capture_output=True)


@pytest.mark.skipif(shutil.which("cc") is None, reason="the image's one program is built here")
async def test_names_are_known_in_an_image_that_holds_one_program(root: Path, programs: Path) -> None:
    image = root / "image"
    image.mkdir()
    (root / "show.c").write_text(SHOW)
    await asyncio.to_thread(subprocess.run, ["cc", "-static", "-o", str(image / "show"), str(root / "show.c")], check=True)
    sandbox = Sandbox(Config(state_dir=str(root), images={"bare": str(image)}))
    try:
        await sandbox.probe()
    except Failure as failure:
        pytest.skip(failure.message)  # this node cannot isolate, and the message says why
    made = await sandbox.create_network(network())
    id = await sandbox.create(replace(spec("", **member(made, "main1")), image="bare", argv=("/show",)))
    await sandbox.start(id)
    said = b"".join([chunk.data async for chunk in sandbox.logs(id, 0, True)]).decode()
    assert [f"{address} {host}" for host, address in made.addresses.items()] == said.splitlines()[-2:]
    await sandbox.remove(id)
    await sandbox.remove_network(made.id)
    await sandbox.teardown()


async def test_ports_are_dialled_in_a_network_too(sandbox: Sandbox) -> None:
    made = await sandbox.create_network(network())
    script = SERVE.replace("socket.gethostname(), 7000", '"127.0.0.1", 7000')
    id = await sandbox.create(replace(spec("", **member(made, "main1")), argv=("python3", "-c", script)))
    await sandbox.start(id)
    async for _ in sandbox.logs(id, 0, True):
        break
    connection = await sandbox.dial(id, 7000)
    assert await connection.read() == b"main1"
    await connection.close()
    await sandbox.remove(id)
    await sandbox.remove_network(made.id)


async def test_a_network_outlives_the_agent(sandbox: Sandbox, root: Path) -> None:
    made = await sandbox.create_network(network())
    id = await serve(sandbox, made, "sub1")
    await sandbox.teardown()
    other = Sandbox(Config(state_dir=str(root)))
    assert list(await other.list_networks({"a": "b"})) == [made]
    assert (await run(other, f"python3 -c '{ASK}' sub1", **member(made, "main1"))).out == "sub1\n"
    await other.remove(id)
    await other.remove_network(made.id)
    assert not list((root / "networks").iterdir())
    await other.teardown()


async def test_a_network_that_nobody_holds_any_more_is_told_and_can_be_made_anew(sandbox: Sandbox, root: Path) -> None:
    wanted = network()
    made = await sandbox.create_network(wanted)
    id = await sandbox.create(spec("true", **member(made, "main1")))
    os.kill(lock_holder(root / "networks" / made.id / "lock") or 0, signal.SIGKILL)
    with pytest.raises(Failure, match="What held the network of this session was killed"):
        await sandbox.start(id)
    assert await sandbox.create_network(wanted) == made
    assert (await run(sandbox, "true", **member(made, "sub1"))).code == 0
    await sandbox.remove(id)
    await sandbox.remove_network(made.id)


async def test_what_was_left_half_made_is_swept(sandbox: Sandbox, root: Path) -> None:
    made = await sandbox.create_network(network())
    (root / "networks" / made.id / "network.json").unlink()
    assert lock_holder(root / "networks" / made.id / "lock") is not None
    await sandbox.teardown()
    other = Sandbox(Config(state_dir=str(root)))
    await other.probe()
    assert not list((root / "networks").iterdir()), "and the process that held it is gone, as the fixture sees"
    await other.teardown()


@tools
async def test_containers_hang_on_a_bridge_of_the_node(sandbox: Sandbox, bridge: str) -> None:
    addresses = {"main1": "10.247.253.3", "sub1": "10.247.253.4"}
    made = await sandbox.create_network(network(bridge=bridge, subnet="10.247.253.0/28", mtu=1400, addresses=addresses))
    assert made.addresses == addresses
    id = await serve(sandbox, made, "sub1")
    said = await run(sandbox, f"python3 -c '{ASK}' sub1; ip -br link show eth0; cat /proc/net/dev", **member(made, "main1"))
    assert said.out.startswith("sub1\n")
    before = (await asyncio.to_thread(links)).count(f"{bridge} ")
    assert before == 1
    await sandbox.remove(id)
    await sandbox.remove_network(made.id)
    assert bridge in await asyncio.to_thread(links)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may")
async def test_an_ordinary_user_is_told_that_he_cannot_use_the_node_s_bridge(sandbox: Sandbox) -> None:
    with pytest.raises(Failure, match="cannot connect containers to a bridge of the node: it needs root"):
        await sandbox.create_network(network(bridge="br0", subnet="10.247.253.0/28"))
