"""The sentences that people read while they wait."""

from __future__ import annotations

from typing import Any

import pytest
from backendai.model.slots import SCALE
from backendai.sokovan.cluster import take
from backendai.sokovan.plan import make_plan
from backendai.sokovan.snapshot import Agent, Request
from backendai_agentselector.concentrated import Concentrated
from backendai_scheduler.fifo import Fifo

GIB = 1 << 30
CORE = SCALE


def hold(agents: list[Agent], **wanted: int) -> str:
    request = Request("s", "u", "", "", 1, 0.0, ({name.replace("_", "."): amount for name, amount in wanted.items()},))
    fifo: Any = Fifo()
    selector: Any = Concentrated()
    return make_plan(take(0.0, [request], agents), fifo, selector).holds["s"]


def box(name: str, used: dict[str, int] | None = None, why: str = "", **capacity: int) -> Agent:
    return Agent(name, name, {slot.replace("_", "."): amount for slot, amount in capacity.items()}, used or {}, why)


@pytest.mark.parametrize(("agents", "wanted", "says"), [
    ([], {"cpu": CORE}, "No agent is connected."),
    ([box("a", why="it is not connected"), box("b", why="the engine does not answer")], {"cpu": CORE},
     "No agent can take it: a: it is not connected; b: the engine does not answer."),
    ([box("a", {"cpu": 3 * CORE}, cpu=4 * CORE), box("b", {"cpu": 2 * CORE}, cpu=4 * CORE)], {"cpu": 4 * CORE},
     "Waits for 4 cores: the most that one agent has free now is 2 (agent b)."),
    ([box("a", {"cpu": CORE}, cpu=CORE)], {"cpu": CORE}, "Waits for 1 core: the most that one agent has free now is 0 (agent a)."),
    ([box("a", {"cpu": CORE}, cpu=2 * CORE)], {"cpu": 1500}, "Waits for 1.5 cores: the most that one agent has free now is 1 (agent a)."),
    ([box("a", {"mem": 3 * GIB}, mem=4 * GIB)], {"mem": 2 * GIB},
     "Waits for 2g of memory: the most that one agent has free now is 1g (agent a)."),
    ([box("a", mem=16 * GIB - 5000)], {"mem": 16 * GIB},
     "Needs 16384m of memory: the most that one agent has at all is 16383m (agent a). It waits for a larger one."),
    ([box("a", mem=16 * GIB - 5)], {"mem": 16 * GIB},
     "Needs 16384m of memory: the most that one agent has at all is 16383m (agent a). It waits for a larger one."),
    ([box("a", cpu=CORE)], {"cuda_device": CORE},
     "Needs 1 cuda.device: the most that one agent has at all is 0 (agent a). It waits for a larger one."),
    ([box("a", {"cpu": 4 * CORE}, cpu=4 * CORE, mem=4 * GIB), box("b", {"mem": 4 * GIB}, cpu=4 * CORE, mem=4 * GIB)],
     {"cpu": 2 * CORE, "mem": GIB}, "Waits for 2 cores and 1g of memory on one agent; no agent has both free now."),
    ([box("a", {"cpu": CORE}, cpu=CORE, mem=GIB, cuda_device=CORE),
      box("b", {"mem": GIB, "cuda.device": CORE}, cpu=CORE, mem=GIB, cuda_device=CORE)], {"cpu": CORE, "mem": GIB, "cuda_device": CORE},
     "Waits for 1 core, 1 cuda.device and 1g of memory on one agent; no agent has all of them free now."),
    ([box("a", cpu=CORE, mem=8 * GIB), box("b", cpu=8 * CORE, mem=GIB)], {"cpu": 4 * CORE, "mem": 4 * GIB},
     "Needs 4 cores and 4g of memory on one agent; no agent is that large; it waits for one that is."),
])
def test_the_reason_names_what_lacks_and_what_would_help(agents: list[Agent], wanted: dict[str, int], says: str) -> None:
    assert hold(agents, **wanted) == says


def test_of_many_sick_agents_three_are_named() -> None:
    said = hold([box(f"n{i}", why="away") for i in range(9)], cpu=CORE)
    assert said == "No agent can take it: n0: away; n1: away; n2: away; and 6 more."


def test_a_reason_names_no_other_session() -> None:
    fifo: Any = Fifo()
    selector: Any = Concentrated()
    waiting = [Request(f"secret{n}", "u", "", "", 1, float(n), ({"cpu": 4 * CORE},)) for n in range(3)]
    plan = make_plan(take(0.0, waiting, [box("a", cpu=5 * CORE)]), fifo, selector)
    assert len(plan.holds) == 2 and not any("secret" in said for said in plan.holds.values())


def test_the_sentence_says_what_is_left_when_the_plan_is_done() -> None:
    """That is what the reader finds, once the plan is carried out."""
    fifo: Any = Fifo(Fifo.Config(overtake=True))
    selector: Any = Concentrated()
    waiting = [Request("large", "u", "", "", 1, 0.0, ({"cpu": 4 * CORE},)), Request("small", "u", "", "", 1, 1.0, ({"cpu": 2 * CORE},)),
               Request("next", "u", "", "", 1, 2.0, ({"cpu": 2 * CORE},))]
    plan = make_plan(take(0.0, waiting, [box("a", {"cpu": CORE}, cpu=4 * CORE)]), fifo, selector)
    assert plan.holds == {"large": "Waits for 4 cores: the most that one agent has free now is 1 (agent a).",
                          "next": "Waits for 2 cores: the most that one agent has free now is 1 (agent a)."}
