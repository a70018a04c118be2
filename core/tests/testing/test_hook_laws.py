"""Each law of a hook plugin catches the plugin that breaks it, and no other law does."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from backendai.model.session import Session
from backendai.spec import Reject, hookimpl
from backendai.spec.hook_v20 import Credentials, Enqueue, Placement, Request, User

sys.path.insert(0, str(Path(__file__).parent))  # for broken: pytest's importlib mode adds nothing itself
import broken

SPEC = "hook_v20"


class Good:
    """One of each kind: a veto, a notice, an answer."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.busy = False

    @hookimpl
    async def pre_enqueue_session(self, enqueue: Enqueue) -> None:
        if enqueue.spec.slots.get("cpu", 0) > 1000:
            raise Reject("A session may have one core; ask for less.")

    @hookimpl
    async def post_start_session(self, session: Session) -> None:
        self.seen.append(session.id)

    @hookimpl
    async def pre_auth(self, request: Request) -> str | None:
        return "ada" if request.headers.get("x-api-key") else None


class Deaf:
    """It forgot the mark."""

    async def pre_enqueue_session(self, enqueue: Enqueue) -> None:
        raise Reject("No.")


class Fragile(Good):
    @hookimpl
    async def predicate(self, placement: Placement) -> None:
        placement.agents[1]


class Sleeper(Good):
    @hookimpl
    async def predicate(self, placement: Placement) -> None:
        await asyncio.sleep(60)


class Talker(Good):
    @hookimpl
    async def predicate(self, placement: Placement) -> Any:
        return True


class Mute(Good):
    @hookimpl
    async def pre_enqueue_session(self, enqueue: Enqueue) -> None:
        raise Reject("")


class Late(Good):
    @hookimpl
    async def post_start_session(self, session: Session) -> None:
        raise Reject("I would rather not.")


class Meddler(Good):
    @hookimpl
    async def pre_enqueue_session(self, enqueue: Enqueue) -> None:
        enqueue.spec.env["PATH"] = "/mine"  # type: ignore[index]  # the contract says Mapping, and this is the crime


class Single(Good):
    @hookimpl
    async def predicate(self, placement: Placement) -> None:
        if self.busy:
            raise RuntimeError("still thinking")
        self.busy = True
        await asyncio.sleep(0.001)
        self.busy = False


class Blocker(Good):
    @hookimpl
    async def predicate(self, placement: Placement) -> None:
        if not self.busy:
            time.sleep(0.25)  # noqa: ASYNC251 - the crime
        self.busy = True


class Gossip(Good):
    @hookimpl
    async def authorize(self, credentials: Credentials) -> User | None:
        logging.getLogger("gossip").debug("%s said %s", credentials.name, credentials.password)
        return None


MUTANTS = broken.general(SPEC, Good) | {
    "test_it_hears_something": Deaf,
    "test_it_bears_every_event": Fragile,
    "test_it_answers_in_time": Sleeper,
    "test_answers_are_as_declared": Talker,
    "test_vetoes_give_a_reason": Mute,
    "test_notices_are_not_refused": Late,
    "test_it_leaves_arguments_alone": Meddler,
    "test_it_hears_several_at_once": Single,
    "test_it_lets_others_run": Blocker,
    "test_it_keeps_secrets": Gossip,
}


@pytest.mark.parametrize(("law", "mutant"), broken.cases(SPEC, MUTANTS))
def test_a_law_catches_its_mutant(law: str, mutant: Any) -> None:
    broken.breaks_only(SPEC, law, mutant, still_s=0.2 if mutant is Blocker else None)


def test_a_good_one_holds_all() -> None:
    broken.holds_all(SPEC, Good)


def test_there_is_an_example_of_every_event() -> None:
    from backendai.spec.hook_v20 import SPEC as CONTRACT
    from backendai.testing.hook_v20 import EXAMPLES

    assert list(EXAMPLES) == list(CONTRACT.hooks())
