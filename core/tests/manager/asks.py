"""Sessions of every kind, picked at random."""

from __future__ import annotations

from random import Random
from typing import Any

from backendai.manager.operations.asking import AfterInput, PartInput, RetryInput, WishesInput
from backendai.model.session import After, Arrange, Evicted, SessionType

KINDS = {"plain": 3, "idle": 2, "gang": 4, "array": 2, "after": 3, "later": 2, "retry": 4, "victim": 3, "urgent": 3, "limited": 2}


def pick(random: Random, now: float, known: list[str]) -> dict[str, Any]:
    """Return what to ask for. known: ids of sessions that may be followed."""
    kind = random.choices(list(KINDS), list(KINDS.values()))[0]
    asked: dict[str, Any] = {
        "cpu": random.choice((0.5, 1, 2, 4)), "mem": random.choice(("512m", "2g", "8g")), "priority": random.choice((0, 10, 10, 20)),
        "group": random.choice(("default", "default", "other")), "grace_s": random.choice((0.0, 10.0))}
    if kind == "idle":
        asked |= {"type": SessionType.INTERACTIVE}
    elif kind == "gang":
        asked |= _gang(random) | {"group": "default"}
    elif kind == "array":
        asked |= {"array": random.choice(("0-3%2", "1-3%1", "0-2")), "cpu": 0.5, "mem": "512m"}
    elif kind == "after" and known:
        asked |= {"after": tuple(AfterInput(random.choice(known), random.choice(list(After))) for _ in range(random.choice((1, 1, 2))))}
    elif kind == "later":
        asked |= {"not_before": now + random.choice((5.0, 60.0, 600.0))}
    elif kind == "retry":
        asked |= _retry(random)
    elif kind == "victim":
        asked |= {"priority": 0, "evicted": random.choice(list(Evicted)), "cpu": random.choice((2, 4)), "mem": "2g", "group": "default"}
        if random.random() < 0.5:
            asked |= {"type": SessionType.INTERACTIVE}
    elif kind == "urgent":
        asked |= {"priority": 90, "cpu": random.choice((2, 4)), "mem": "2g", "group": "default"}
    elif kind == "limited":
        asked |= {"time_limit_s": random.choice((5.0, 300.0)), "type": random.choice(list(SessionType))}
    if random.random() < 0.15 and asked.get("type") is not SessionType.INTERACTIVE:
        asked |= _retry(random)
    if random.random() < 0.1 and "evicted" not in asked:
        asked |= {"evicted": random.choice(list(Evicted))}
    return asked


def _gang(random: Random) -> dict[str, Any]:
    wishes = random.choice((
        WishesInput(one_agent=True), WishesInput(arrange=Arrange.SPREAD), WishesInput(arrange=Arrange.PACK, strict=False)))
    parts = (PartInput("main"), PartInput("sub", 1 if wishes.arrange is Arrange.SPREAD else random.choice((1, 2))))
    return {"cluster": parts, "wishes": wishes, "cpu": random.choice((0.5, 1)), "mem": "512m"}


def _retry(random: Random) -> dict[str, Any]:
    return {"retry": RetryInput(random.choice((1, 2)), random.choice((0.0, 5.0)), random.choice(((), (1,), (2,))))}
