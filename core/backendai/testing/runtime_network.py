"""The laws of networks of sessions: their containers know and reach one another, nobody else does, and nothing is left of them.

Where the image has no ``python3`` and no ``perl``, or the runtime's containers run nothing, the laws about traffic are not tried.
"""

from __future__ import annotations

import random
import secrets
from typing import Any

from backendai.spec.runtime_v10 import SPEC, Endpoint, Network, NetworkSpec, Runtime
from backendai.testing.containers import Bench, refusal
from backendai.testing.laws import Conformance, NotHere, ensure, law

HOSTS = ("main1", "sub1")
_LISTEN = """
import socket
server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind((socket.gethostbyname("HOST"), PORT))
server.listen()
open("listens-HOST", "w").close()
while True:
    connection, _ = server.accept()
    connection.sendall(b"hello from HOST")
    connection.close()
"""
_ASK = """
import socket
connection = socket.create_connection(("HOST", PORT), timeout=3)
print(connection.recv(100).decode())
"""
_PERL_LISTEN = """
use Socket;
socket(S, PF_INET, SOCK_STREAM, 0) && setsockopt(S, SOL_SOCKET, SO_REUSEADDR, 1) || die $!;
bind(S, sockaddr_in(PORT, inet_aton("HOST"))) && listen(S, 5) || die $!;
open(F, ">listens-HOST"); close(F);
while (accept(C, S)) { syswrite(C, "hello from HOST"); close(C); }
"""
_PERL_ASK = """
use Socket;
alarm 3;
socket(S, PF_INET, SOCK_STREAM, 0) && connect(S, sockaddr_in(PORT, inet_aton("HOST"))) || die $!;
sysread(S, $data, 100);
print "$data\\n";
"""
PROGRAMS = {"python3": ("-c", _LISTEN, _ASK), "perl": ("-e", _PERL_LISTEN, _PERL_ASK)}


class NetworkLaws(Conformance[Runtime]):
    """What a runtime keeps to about networks of sessions."""

    spec = SPEC

    @law()
    async def test_one_network_name_is_one_network(self, bench: Bench) -> None:
        """Creating a network whose name is there returns it, with an address of its own for each host."""
        spec = network_spec(bench)
        first, again = [await bench.network(spec) for _ in range(2)]
        ensure(isinstance(first, Network) and first.id and first.addresses.keys() == set(HOSTS), f"create_network() returned {first!r}")
        ensure(len(set(first.addresses.values())) == len(HOSTS), f"the hosts share an address: {dict(first.addresses)}")
        ensure((again.id, dict(again.addresses)) == (first.id, dict(first.addresses)), f"made {first}, and again {again}")

    @law()
    async def test_networks_are_listed_by_labels(self, bench: Bench) -> None:
        """A list by labels holds the networks that bear all of them, with the labels as they were given."""
        made = await bench.network(network_spec(bench, {"kit.odd": "a=b, \"c\""}))
        other = await bench.network(network_spec(bench, {"kit.odd": "other"}))
        found = list(await bench.runtime.list_networks({**bench.labels, "kit.odd": "a=b, \"c\""}))
        ensure([one.id for one in found] == [made.id],
               f"asked for one it listed {'another, too' if other.id in {one.id for one in found} else 'none'}")
        ensure(bench.labels.items() <= found[0].labels.items(), f"the labels came back as {dict(found[0].labels)}")

    @law()
    async def test_removed_networks_are_gone(self, bench: Bench) -> None:
        """A removed network is no longer listed, and removing it again does nothing."""
        made = await bench.network(network_spec(bench))
        for _ in range(2):
            await bench.runtime.remove_network(made.id)
            ensure(not await bench.runtime.list_networks(bench.labels), "a removed network is listed")

    @law()
    async def test_a_network_in_use_stays(self, bench: Bench) -> None:
        """A network is not removed under a container that runs in it, and the refusal says that it can be tried again."""
        made = await bench.network(network_spec(bench))
        id = await bench.idle(**place(made, "main1"))
        failure = await refusal(bench.runtime.remove_network(made.id))
        ensure(failure is not None and failure.code == "unavailable", f"it says {failure.code if failure else 'nothing'} about it")
        await bench.runtime.remove(id)
        await bench.runtime.remove_network(made.id)

    @law()
    async def test_hosts_reach_each_other_by_name(self, bench: Bench) -> None:
        """Containers of one network know one another by name and reach one another's ports."""
        pair = await _talk(bench)
        said = [await pair.ask("sub1", "main1"), await pair.ask("main1", "sub1"), await pair.ask("main1", "main1")]
        ensure(said == [b"hello from main1\n", b"hello from sub1\n", b"hello from main1\n"],
               f"main1 and sub1 greeted one another, and themselves, with {said}")

    @law()
    async def test_networks_are_private(self, bench: Bench) -> None:
        """A container of another network does not reach one, by whatever address."""
        pair = await _talk(bench)
        other = await bench.network(network_spec(bench))
        outsider = await bench.idle(**place(other, "main1"))
        for host in HOSTS:
            said = await pair.ask_from(outsider, pair.made.addresses[host])
            ensure(b"hello" not in said, f"a container of another network was answered: {said!r}")


class Pair:
    """Two containers of one network that greet whoever asks on a port."""

    def __init__(self, bench: Bench, made: Network, port: int, program: str, ids: dict[str, str]) -> None:
        self.bench, self.made, self.port, self.program, self.ids = bench, made, port, program, ids

    async def ask(self, whom: str, asked: str) -> bytes:
        """Return what the container *whom* gets to hear from *asked*."""
        return await self.ask_from(self.ids[whom], asked)

    async def ask_from(self, id: str, asked: str) -> bytes:
        """Return what a container gets to hear from a name or an address."""
        flag, _, script = PROGRAMS[self.program]
        _, said, _ = await self.bench.inside(id, self.program, flag, script.replace("HOST", asked).replace("PORT", str(self.port)))
        return said


async def _talk(bench: Bench) -> Pair:
    """Make a pair whose containers listen."""
    made, port = await bench.network(network_spec(bench)), random.randint(10000, 30000)
    ids = {host: await bench.idle(**place(made, host)) for host in HOSTS}
    inside = ids["main1"]
    programs = [name for name in PROGRAMS if (await bench.inside(inside, "sh", "-c", f"command -v {name}"))[0] == 0]
    if not programs:
        raise NotHere(f"the image has none of {', '.join(PROGRAMS)} to talk with")
    flag, script, _ = PROGRAMS[programs[0]]
    for host, id in ids.items():
        server = await bench.open(id, programs[0], flag, script.replace("HOST", host).replace("PORT", str(port)))
        bench.open_streams.append(server)

        async def listens(name: str = f"listens-{host}") -> bool:
            return (bench.folder / name).exists()

        await bench.until(listens, f"a server in {host} to listen")
    return Pair(bench, made, port, programs[0], ids)


def network_spec(bench: Bench, labels: dict[str, str] | None = None) -> NetworkSpec:
    """Return a network with a name of its own."""
    return NetworkSpec(f"bai-kit-{secrets.token_hex(6)}", HOSTS, {**bench.labels, **(labels or {})})


def place(made: Network, host: str) -> dict[str, Any]:
    """Return the fields of a container's spec that put it into a network."""
    return {"net": Endpoint(made.id, made.addresses[host]), "hosts": made.addresses, "hostname": host}
