"""Sessions of several kernels, on one machine and across several."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.parts.absent import Absent, give_up
from tests.parts.hosts import Hosts
from tests.parts.platform import Platform

GREET = """
use Socket;
$SIG{PIPE} = "IGNORE";
my $own = $ENV{BACKENDAI_CLUSTER_HOST};
socket(S, PF_INET, SOCK_STREAM, 0) && setsockopt(S, SOL_SOCKET, SO_REUSEADDR, 1) || die $!;
bind(S, sockaddr_in(7000, inet_aton($own))) && listen(S, 99) || die $!;
if ($ENV{BACKENDAI_CLUSTER_ROLE} ne "main") {
    accept(C, S); syswrite(C, "$own of $ENV{BACKENDAI_CLUSTER_REPLICAS}\n"); close(C); sleep 1000;
}
for my $other (grep { $_ ne $own } split(",", $ENV{BACKENDAI_CLUSTER_HOSTS})) {
    do { select(undef, undef, undef, 0.1); socket(T, PF_INET, SOCK_STREAM, 0); } until connect(T, sockaddr_in(7000, inet_aton($other)));
    sysread(T, $said, 99); print $said;
}
"""
PARTS = [{"role": "main"}, {"role": "sub", "count": 2}]
GREETINGS = b"sub1 of main:1,sub:2\nsub2 of main:1,sub:2\n"


def ask(platform: Platform, **more: Any) -> str:
    body: dict[str, Any] = {"type": "batch", "command": ["perl", "-e", GREET], "slots": {"cpu": 0.1, "mem": "64m"}, "cluster": PARTS}
    if platform.image:
        body["image"] = platform.image
    return str(platform.rest("POST", "/v1/sessions", body | more)["id"])


def test_the_kernels_of_a_session_reach_each_other_by_name(platform: Platform) -> None:
    id = ask(platform)
    ended = platform.wait(id)
    assert (ended["state"], ended["exit_code"]) == ("TERMINATED", 0), ended
    assert platform.bai("logs", id).out == GREETINGS


def test_a_cluster_by_the_command_line_with_a_script_before_it(platform: Platform) -> None:
    script = platform.folder / "home" / "prepare.sh"
    script.write_text("echo prepared $BACKENDAI_CLUSTER_HOST\n")
    done = platform.run("getent hosts sub1 | wc -l; cat /etc/hosts | grep -c sub", "--cluster", "main:1,sub:2", "--bootstrap", str(script))
    assert done.out == b"prepared main1\n1\n2\n"


def test_a_script_that_fails_is_the_reason(platform: Platform) -> None:
    script = platform.folder / "home" / "broken.sh"
    script.write_text("echo no luck; exit 9\n")
    id = platform.detach("echo never", "--bootstrap", str(script))
    ended = platform.wait(id)
    assert ended["state"] == "FAILED" and "bootstrap script failed with status 9" in str(ended), ended
    assert platform.bai("logs", id).out == b"no luck\n"


def test_an_interactive_cluster_is_entered_and_knows_its_kernels(platform: Platform, name: str) -> None:
    platform.begin("--name", name, "--cluster", "main:1,sub:1")
    assert platform.bai("exec", name, "--", "sh", "-c", "getent hosts sub1 >/dev/null && hostname").out == b"main1\n"
    platform.bai("stop", name)
    assert platform.wait(name)["state"] == "TERMINATED"


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    """Two more machines."""
    try:
        with Hosts(2) as hosts:
            yield hosts
    except Absent as why:
        give_up(why)


@pytest.fixture
def far(hosts: Hosts) -> Iterator[Platform]:
    """A manager on this machine and agents on two others."""
    here = hosts.take_part()
    names = ("east", "west")
    made = Platform("sandbox", names=names, inside={name: Hosts.inside(space) for name, space in zip(names, hosts.spaces, strict=True)})
    with socket.create_server((here, 0)) as probe:
        made.url = f"http://{here}:{probe.getsockname()[1]}"
    try:
        made.start()
        yield made
    finally:
        left = made.remove()
    assert left == []


def test_the_kernels_of_a_session_reach_each_other_across_machines(far: Platform, hosts: Hosts) -> None:
    agents = far.rest("GET", "/v1/agents")["items"]
    id = ask(far, wishes={"arrange": "spread", "strict": False}, slots={"cpu": 0.1, "mem": int(agents[0]["capacity"]["mem"] * 0.4)})
    ended = far.wait(id)
    assert (ended["state"], ended["exit_code"]) == ("TERMINATED", 0), ended
    assert far.bai("logs", id).out == GREETINGS
    far.rest("DELETE", f"/v1/sessions/{id}?force=true")
    assert [hosts.links(number) for number in range(2)] == [[], []], "nothing of the network is left on the machines"


def test_an_agent_that_is_killed_takes_its_network_over(far: Platform, hosts: Hosts) -> None:
    agents = far.rest("GET", "/v1/agents")["items"]
    id = ask(far, wishes={"arrange": "spread", "strict": False}, slots={"cpu": 0.1, "mem": int(agents[0]["capacity"]["mem"] * 0.4)},
             command=["sleep", "1000"])
    far.wait(id, "running")
    far.kill("west")
    far.start()
    far.wait(id, "running")
    assert all(hosts.links(number) for number in range(2))
    far.rest("DELETE", f"/v1/sessions/{id}?force=true")
    far.sweep()
    assert [hosts.links(number) for number in range(2)] == [[], []]
