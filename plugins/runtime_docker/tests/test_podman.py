"""The same plugin on Podman, through its Docker API."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from backendai.model.errors import Failure
from backendai.spec.runtime_v10 import ContainerSpec, ContainerState, Endpoint, Limits, NetworkSpec, Runtime

from tests.parts.absent import Absent, give_up

pytestmark = pytest.mark.docker
LIMITS = "nofile=1024:1024"  # Podman's own defaults may be more than this machine allows anyone


@pytest.fixture
def podman(docker_engine: Any, base_image: str) -> Iterator[str]:
    """The URL of a Podman of our own that has the base image."""
    if shutil.which("podman") is None or os.geteuid() != 0:
        give_up(Absent("podman is not installed (apt-get install podman), or we are not root"))
    runtime = 'runtime = "runc"\n' if shutil.which("runc") else ""  # which also knows the older mixed cgroups
    folder = Path(tempfile.mkdtemp(prefix="bai-test-podman-", dir="/tmp"))
    (folder / "containers.conf").write_text(f'[containers]\ndefault_ulimits = ["{LIMITS}", "{LIMITS.replace("nofile", "nproc")}"]\n'
                                            '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n' + runtime)
    (folder / "storage.conf").write_text(f'[storage]\ndriver = "overlay"\ngraphroot = "{folder}/root"\nrunroot = "{folder}/run"\n')
    env = {**os.environ, "CONTAINERS_CONF": f"{folder}/containers.conf", "CONTAINERS_STORAGE_CONF": f"{folder}/storage.conf"}
    engine = None
    try:
        made = docker_engine.run("create", base_image).strip()
        docker_engine.run("export", "-o", f"{folder}/base.tar", made)
        docker_engine.run("rm", made)
        subprocess.run(["podman", "import", f"{folder}/base.tar", "localhost/base:1"], env=env, check=True, capture_output=True)
        engine = subprocess.Popen(["podman", "system", "service", "--time=0", f"unix://{folder}/s"], env=env)
        yield f"unix://{folder}/s"
    finally:
        if engine is not None:
            engine.terminate()
            engine.wait(30)
        subprocess.run(["podman", "rm", "-fa"], env=env, check=False, capture_output=True)
        for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
            if (point := line.split()[4]).startswith(f"{folder}/"):
                subprocess.run(["umount", "-l", point], check=False)
        shutil.rmtree(folder)


async def test_a_session_lives_on_podman(podman: str, bench: Any, with_runtime: Callable[..., Awaitable[Runtime]]) -> None:
    runtime = await with_runtime(url=podman)

    async def well() -> Any:
        try:
            return await runtime.probe()
        except Failure:  # it has just been started
            return None

    bench.runtime, bench.image, bench.podman = runtime, "localhost/base:1", True
    assert (await bench.until(well)).engine.startswith("podman ")
    image = await runtime.ensure_image(bench.image, lambda _: pytest.fail("it is here"))
    data = os.urandom(300_000) + b"x" * 40_000 + b"\n"
    spec: ContainerSpec = bench.spec("sh", "-c", "id -u; cat > /tmp/in < /dev/null; while [ ! -s /home/work/go ]; do sleep 0.05; done; "
                                     "cat /home/work/go; exit 4", image=image.name, limits=Limits(cpu=500, memory=64 << 20, pids=64))
    id = await runtime.create(spec)
    assert await runtime.create(spec) == id
    await runtime.start(id)
    await runtime.start(id)
    assert (await bench.see(id)).state is ContainerState.RUNNING
    assert (await bench.inside(id, "sh", "-c", "cat > /home/work/new; mv /home/work/new /home/work/go", stdin=data))[0] == 0
    assert (await bench.output(id))[1] == b"1000\n" + data
    seen = await bench.ended(id)
    assert (seen.exit_code, seen.labels) == (4, bench.labels)
    await runtime.stop(id, "SIGTERM", 1)
    await runtime.remove(id)
    await runtime.remove(id)
    assert await bench.see(id) is None


async def test_kernels_of_a_session_reach_each_other_on_podman(podman: str, bench: Any,
                                                              with_runtime: Callable[..., Awaitable[Runtime]]) -> None:
    runtime = await ready(podman, bench, with_runtime)
    made = await runtime.create_network(NetworkSpec(f"bai-test-{os.getpid()}", ("main1", "sub1"), bench.labels))
    assert await runtime.create_network(NetworkSpec(made.name, ("main1", "sub1"), bench.labels)) == made
    ids = {}
    for host, address in made.addresses.items():
        ids[host] = await runtime.create(bench.spec(net=Endpoint(made.id, address), hosts=made.addresses, hostname=host))
        await runtime.start(ids[host])
    _, out, _ = await bench.inside(ids["main1"], "bash", "-c", "timeout 2 bash -c 'echo > /dev/tcp/sub1/9' 2>&1")
    assert b"refused" in out, out
    assert await refusal_code(runtime.remove_network(made.id)) == "unavailable"
    for id in ids.values():
        await runtime.remove(id)
    await runtime.remove_network(made.id)
    assert list(await runtime.list_networks(bench.labels)) == []


async def refusal_code(call: Awaitable[None]) -> str:
    try:
        await call
    except Failure as failure:
        return failure.code
    return ""


@pytest.fixture
def bridge() -> Iterator[str]:
    """A bridge of the node, as a network plugin would make one; Podman takes it away with its network."""
    name = f"bpod{os.getpid()}"
    for words in (["add", name, "type", "bridge"], ["set", name, "up"]):
        subprocess.run(["ip", "link", *words], check=True)
    yield name
    subprocess.run(["ip", "link", "delete", name], check=False, capture_output=True)


async def test_podman_uses_a_bridge_of_the_node(podman: str, bench: Any, with_runtime: Callable[..., Awaitable[Runtime]],
                                                bridge: str) -> None:
    runtime = await ready(podman, bench, with_runtime)
    addresses = {"main1": "10.247.252.3", "sub1": "10.247.252.4"}
    made = await runtime.create_network(NetworkSpec(f"bai-test-{bridge}", tuple(addresses), bench.labels, False, bridge, "10.247.252.0/28",
                                                    "10.247.252.1", 1400, addresses))
    assert made.addresses == addresses
    ids = [await bench.run(net=Endpoint(made.id, address), hosts=addresses, hostname=host) for host, address in addresses.items()]
    _, out, _ = await bench.inside(ids[0], "bash", "-c", "timeout 2 bash -c 'echo > /dev/tcp/sub1/9' 2>&1; cat /sys/class/net/eth0/mtu")
    assert b"refused" in out and out.endswith(b"1400\n")
    for id in ids:
        await runtime.remove(id)
    await runtime.remove_network(made.id)


async def ready(url: str, bench: Any, with_runtime: Callable[..., Awaitable[Runtime]]) -> Runtime:
    """Return the runtime on Podman, once that answers."""
    runtime: Runtime = await with_runtime(url=url)
    bench.runtime, bench.image = runtime, "localhost/base:1"

    async def well() -> Any:
        try:
            return await runtime.probe()
        except Failure:  # it has just been started
            return None

    await bench.until(well)
    return runtime
