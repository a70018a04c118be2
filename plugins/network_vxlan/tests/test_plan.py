"""Planning a VXLAN."""

from __future__ import annotations

import pytest
from backendai.model.errors import Failure
from backendai.spec.network_v10 import NetView
from backendai_network_vxlan.plan import make_plan

VIEW = NetView("n", {"main1": "a", "sub1": "b"}, {"a": "192.0.2.1", "b": "192.0.2.2"})


def test_nodes_come_before_kernels() -> None:
    plan = make_plan(VIEW, "10.0.0.0/29", 5, 5)
    assert (plan.gateways, plan.addresses) == ({"a": "10.0.0.1", "b": "10.0.0.2"}, {"main1": "10.0.0.3", "sub1": "10.0.0.4"})
    assert (plan.subnet, plan.vni) == ("10.0.0.0/29", 5)


def test_what_is_used_up_is_said() -> None:
    first = make_plan(VIEW, "10.0.0.0/29", 5, 5)
    again = NetView("m", VIEW.hosts, VIEW.nodes, [first])
    with pytest.raises(Failure, match=r"No subnet of 10\.0\.0\.0/29 is free for 2 kernels"):
        make_plan(again, "10.0.0.0/29", 5, 9)
    with pytest.raises(Failure, match="All VXLAN numbers from 5 to 5 are taken"):
        make_plan(again, "10.0.0.0/24", 5, 5)
