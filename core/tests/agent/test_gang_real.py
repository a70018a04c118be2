"""A session of several kernels for real: the sandbox and Docker under an agent, with a played manager."""

from __future__ import annotations

import asyncio
import os
import shutil
from typing import Any

import msgspec
import pytest
from backendai.agent.output import Output
from backendai.model.ids import make_id
from backendai.plugin.host import Settings
from backendai.wire.link import KernelOrder, KernelState, Peer

from tests.parts.absent import Absent, give_up

pytestmark = pytest.mark.system
SESSION = make_id(9, 9)
GREET = """
use Socket;
my $own = $ENV{BACKENDAI_CLUSTER_HOST};
socket(S, PF_INET, SOCK_STREAM, 0) && setsockopt(S, SOL_SOCKET, SO_REUSEADDR, 1) || die $!;
bind(S, sockaddr_in(7000, inet_aton($own))) && listen(S, 5) || die $!;
if (fork() == 0) { while (accept(C, S)) { syswrite(C, "from $own\\n"); close(C); } }
for my $other (split(",", $ENV{BACKENDAI_CLUSTER_HOSTS})) {
    my $tries = 0;
    do { select(undef, undef, undef, 0.1); socket(T, PF_INET, SOCK_STREAM, 0); }
        until connect(T, sockaddr_in(7000, inet_aton($other))) || ++$tries > 100;
    sysread(T, $said, 99); print $said;
}
print "rank $ENV{BACKENDAI_CLUSTER_RANK} of $ENV{BACKENDAI_CLUSTER_SIZE}\\n";
sleep 2;
"""


def gang(world: Any, size: int, **more: Any) -> list[KernelOrder]:
    kernels = [make_id(20 + number, 20 + number) for number in range(size)]
    roles = [("main", 1), *(("sub", number) for number in range(1, size))]
    peers = tuple(Peer(f"{role}{idx}", kernel, "a", role, idx) for (role, idx), kernel in zip(roles, kernels, strict=True))
    orders = [world.order(20 + number, "perl", "-e", GREET, hostname=peer.host, role=peer.role, idx=peer.idx, peers=peers, **more)
              for number, peer in enumerate(peers)]
    return [msgspec.structs.replace(order, session=SESSION, slots={"cpu": 100, "mem": 128 << 20}) for order in orders]


async def log_of(world: Any, order: KernelOrder) -> str:
    output = Output(world.data / "logs" / f"{order.kernel}.log", 1 << 20)
    output.done = True
    return b"".join([data async for _, data in output.read(False, None)]).decode()


def needs_perl() -> None:
    if shutil.which("perl") is None:
        give_up(Absent("perl is not installed, which the sandbox's kernels would run"))


async def test_three_kernels_in_the_sandbox_greet_each_other(real_world: Any) -> None:
    needs_perl()
    orders = gang(real_world, 3)
    async with real_world.agent(runtime="sandbox") as handle:
        await handle.joined()
        await real_world.manager.put(*orders)
        await real_world.manager.until_state(KernelState.GONE, *orders)
        said = [await log_of(real_world, order) for order in orders]
        assert said == [f"from main1\nfrom sub1\nfrom sub2\nrank {rank} of 3\n" for rank in range(3)]
        assert not list((real_world.data / "sandbox" / "networks").iterdir())
        assert {real_world.manager.observed[order.kernel].exit_code for order in orders} == {0}


@pytest.mark.docker
async def test_three_kernels_in_docker_greet_each_other(real_world: Any, docker_engine: Any, base_image: str) -> None:
    orders = gang(real_world, 3, image=base_image)
    plugins = Settings(options={"runtime_v10.docker": {"url": docker_engine.url, "network": f"bai-test-outward-{os.getpid()}"}})
    async with real_world.agent(runtime="docker", plugins=plugins) as handle:
        await handle.joined()
        await real_world.manager.put(*orders)
        await real_world.manager.until_state(KernelState.GONE, *orders)
        said = [await log_of(real_world, order) for order in orders]
        assert said == [f"from main1\nfrom sub1\nfrom sub2\nrank {rank} of 3\n" for rank in range(3)]
        listed = await asyncio.to_thread(docker_engine.run, "network", "ls", "--format", "{{.Name}}")
        assert not [name for name in listed.split() if handle.id[-6:].lower() in name]


async def test_a_script_runs_first_and_its_output_begins_the_log(real_world: Any) -> None:
    order = real_world.order(1, "sh", "-c", "cat made; echo $0 ran", bootstrap="echo preparing as $(id -u); echo data > made")
    async with real_world.agent(runtime="sandbox") as handle:
        await handle.joined()
        await real_world.manager.put(order)
        gone = await real_world.manager.until_state(KernelState.GONE, order)
        assert (gone.exit_code, gone.error) == (0, "")
        assert await log_of(real_world, order) == "preparing as 1000\ndata\nsh ran\n"


async def test_a_script_may_name_its_interpreter_and_its_failure_keeps_the_command_from_running(real_world: Any) -> None:
    needs_perl()
    order = real_world.order(1, "echo", "never", bootstrap="#!/usr/bin/perl\nprint \"in perl\\n\"; exit 42;\n")
    async with real_world.agent(runtime="sandbox") as handle:
        await handle.joined()
        await real_world.manager.put(order)
        gone = await real_world.manager.until_state(KernelState.GONE, order)
        assert (gone.exit_code, gone.code) == (42, "bad-bootstrap") and "status 42" in gone.error
        assert await log_of(real_world, order) == "in perl\n"


async def test_an_idle_session_runs_once_its_script_has_ended_and_stops_politely(real_world: Any) -> None:
    order = real_world.order(1, bootstrap="echo begun; while [ ! -e go ]; do sleep 0.05; done; echo done")
    async with real_world.agent(runtime="sandbox") as handle:
        await handle.joined()
        await real_world.manager.put(order)
        work = real_world.data / "scratch" / order.kernel / "work"
        await real_world.poll(work.exists)
        await asyncio.sleep(0.3)
        assert real_world.manager.observed[order.kernel].state is KernelState.STARTING
        (work / "go").touch()
        await real_world.manager.until_state(KernelState.RUNNING, order)
        await real_world.manager.stop(order)
        gone = await real_world.manager.until_state(KernelState.GONE, order)
        assert (gone.why, gone.error) == ("stopped", "")
        assert await log_of(real_world, order) == "begun\ndone\n"


@pytest.mark.docker
async def test_a_script_in_docker(real_world: Any, docker_engine: Any, base_image: str) -> None:
    orders = [real_world.order(1, "echo", "after", bootstrap="echo before", image=base_image, slots={"mem": 64 << 20}),
              real_world.order(2, "echo", "never", bootstrap="exit 3", image=base_image, slots={"mem": 64 << 20})]
    plugins = Settings(options={"runtime_v10.docker": {"url": docker_engine.url, "network": f"bai-test-outward-{os.getpid()}"}})
    async with real_world.agent(runtime="docker", plugins=plugins) as handle:
        await handle.joined()
        await real_world.manager.put(*orders)
        await real_world.manager.until_state(KernelState.GONE, *orders)
        assert await log_of(real_world, orders[0]) == "before\nafter\n", real_world.manager.observed
        assert real_world.manager.observed[orders[1].kernel].code == "bad-bootstrap"


def test_the_sandbox_has_what_it_needs_here() -> None:
    """What the tests above run is the way with bridges, and not the one without tools."""
    if not (shutil.which("ip") and shutil.which("nsenter")):
        give_up(Absent("ip or nsenter is not installed (apt-get install iproute2 util-linux)"))
