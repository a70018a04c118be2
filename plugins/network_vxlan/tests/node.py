"""One node of a test, in a network namespace of its own: an end, a runtime, and one container that serves its name.

Reads one line of JSON (plan, agent, host, runtime, options), says ``up``, then answers each line that names a host with what the
container hears from it, and takes everything down at the end of its input.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import msgspec
from backendai.model.errors import Failure
from backendai.model.network import NetPlan
from backendai.plugin.host import PluginHost, Settings
from backendai.spec import network_v10, runtime_v10
from backendai.spec.runtime_v10 import ContainerSpec, Endpoint, NetworkSpec, Runtime

SERVE = """
use Socket;
socket(S, PF_INET, SOCK_STREAM, 0) && setsockopt(S, SOL_SOCKET, SO_REUSEADDR, 1) || die $!;
bind(S, sockaddr_in(7000, inet_aton("HOST"))) && listen(S, 5) || die $!;
$| = 1; print "listening\\n";
while (accept(C, S)) { syswrite(C, "HOST"); close(C); }
"""
ASK = """
use Socket;
alarm 5;
socket(S, PF_INET, SOCK_STREAM, 0) && connect(S, sockaddr_in(7000, inet_aton("HOST"))) || die "HOST: $!";
sysread(S, $data, 100); print $data;
"""


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def main() -> None:
    given = json.loads(sys.stdin.readline())
    plan, agent, name = msgspec.convert(given["plan"], NetPlan), given["agent"], given["runtime"]
    host = PluginHost((runtime_v10.SPEC, network_v10.SPEC), Settings(options={f"runtime_v10.{name}": given["options"]}))
    await host.start()
    driver, runtime = host.one(network_v10.SPEC, "vxlan"), host.one(runtime_v10.SPEC, name)
    can = await runtime.probe()
    end = await driver.attach(plan, agent)
    made = await runtime.create_network(NetworkSpec(
        f"bai-test-{plan.network}-{agent}", tuple(plan.addresses), {}, plan.outward, end.bridge, plan.subnet, plan.gateways[agent], end.mtu,
        plan.addresses))
    container = await runtime.create(ContainerSpec(
        f"bai-test-{plan.network}-{agent}", given["image"] or can.default_image, ("perl", "-e", SERVE.replace("HOST", given["host"])),
        hostname=given["host"], network="outward" if plan.outward else "private",
        net=Endpoint(made.id, plan.addresses[given["host"]]), hosts=plan.addresses))
    await runtime.start(container)
    async for _ in runtime.logs(container, 0, True):
        break
    say("up")
    while line := (await asyncio.to_thread(sys.stdin.readline)).strip():
        say(await ask(runtime, container, line))
    await runtime.remove(container)
    await runtime.remove_network(made.id)
    await driver.detach(plan.network, agent)
    await host.stop()
    say("down")


async def ask(runtime: Runtime, container: str, host: str) -> str:
    process: Any = await runtime.exec(container, ("perl", "-e", ASK.replace("HOST", host)), {}, None, None, False)
    said = b""
    while (piece := await process.read()) is not None:
        said += piece[1]
    await process.close()
    return said.decode().strip().replace("\n", " ")


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except Failure as failure:
        say(f"failed: {failure.message} {failure.detail}")
