"""The manager's side of networks between nodes."""

from __future__ import annotations

import msgspec
import pytest
from backendai.manager.networks import from_text, network_name, plan_for, reachable, spans, to_text, with_addresses
from backendai.model.errors import Failure
from backendai.model.network import NetPlan
from backendai.testing.null_network import NullNetwork
from backendai.wire.link import Hello, Peer

NODES = {"a": "192.0.2.1", "b": "192.0.2.2", "c": "", "d": "192.0.2.4"}


def make_peers(*agents: str) -> list[Peer]:
    roles = ["main", *("sub" for _ in agents[1:])]
    return [Peer(f"{role}{at or 1}", f"k{at}", agent, role, at or 1) for at, (role, agent) in enumerate(zip(roles, agents, strict=True))]


def plan(*agents: str, network: str = "n", taken: list[NetPlan] | None = None, outward: bool = False) -> NetPlan | None:
    return plan_for(NullNetwork(), "null", network, make_peers(*agents), NODES, taken or [], outward)


def test_kernels_on_one_agent_need_no_plan() -> None:
    assert not spans(make_peers("a", "a"))
    assert plan("a", "a") is None


def test_kernels_on_several_agents_get_addresses_and_learn_of_the_nodes() -> None:
    made = plan("a", "b", "a")
    assert made is not None
    assert made.plugin == "null"
    assert made.nodes == {"a": "192.0.2.1", "b": "192.0.2.2"}
    told = with_addresses(make_peers("a", "b", "a"), made)
    assert [peer.address for peer in told] == [made.addresses[host] for host in ("main1", "sub1", "sub2")]
    assert with_addresses(make_peers("a"), None) == tuple(make_peers("a"))


def test_asking_again_gives_the_plan_in_force_unless_other_nodes_take_part() -> None:
    first = plan("a", "b")
    assert first is not None
    other = plan("a", "b", network="other", taken=[first])
    assert other is not None
    assert plan("a", "b", taken=[other, first]) == first
    assert plan("b", "a", taken=[other, first]) == first, "whoever lies where, everybody is reached"
    moved = plan("a", "d", taken=[other, first])
    assert moved is not None
    assert list(moved.nodes) == ["a", "d"]
    assert moved.subnet != other.subnet


def test_an_agent_that_nobody_can_reach_is_named_with_what_to_do() -> None:
    with pytest.raises(Failure, match=r"can reach c: an agent needs an address") as caught:
        plan("a", "c")
    assert caught.value.code == "impossible"


def test_a_node_where_the_plugin_does_not_work_is_out_of_reach() -> None:
    hello = Hello(1, "a", "box", "1", "x86_64", "", {}, "sandbox", "", "host", address="192.0.2.1", networks=("null",))
    assert reachable(hello, "null") is hello
    assert reachable(hello, "vxlan").address == ""


def test_a_plan_survives_being_kept_as_text() -> None:
    made = plan("a", "b", outward=True)
    assert made is not None
    assert from_text(to_text(made)) == made
    with pytest.raises(msgspec.DecodeError):
        from_text("{}")


def test_every_attempt_is_a_network_of_its_own() -> None:
    assert network_name("01ABC", 1) == "01abc-1"
    assert network_name("01ABC", 2) != network_name("01ABC", 1)
