"""The laws of a plugin that hears the platform's events."""

from __future__ import annotations

import asyncio
import copy
import io
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any

from backendai.model.errors import Failure
from backendai.model.session import Network, Session, SessionSpec, SessionState, SessionType
from backendai.plugin.errors import PluginFault
from backendai.spec import OnError, Reject
from backendai.spec.hook_v20 import SPEC, Credentials, Enqueue, Heartbeat, Hooks, Placement, Request, Signup, User
from backendai.testing.laws import Conformance, Violation, Weight, ensure, law
from backendai.testing.waiting import STILL_S, at_once, leaves_alone, lets_others_run

SECRET = "kit-5ecret-Pa55word!"
ANSWERS: Mapping[str, type] = {"pre_auth": str, "authorize": User, "post_authorize": Mapping, "pre_signup": Mapping}


class HookConformance(Conformance[Hooks]):
    """What a hook plugin keeps to, for each event that it hears. It is told of a user, a session and an agent that do not exist.

    still_s: seconds that the process may stand still.
    """

    spec = SPEC
    still_s: float = STILL_S

    @law()
    async def test_it_hears_something(self, hooks: Hooks) -> None:
        """It hears at least one event."""
        ensure(_heard(hooks), "it hears no event; mark its methods with @hookimpl")

    @law()
    async def test_it_bears_every_event(self, hooks: Hooks) -> None:
        """No event is a fault to it: it answers, or raises Reject."""
        for event in _heard(hooks):
            said = await _tell(hooks, event)
            ensure(said.late or not said.fault, f"{event} failed: {said.fault}")

    @law()
    async def test_it_answers_in_time(self, hooks: Hooks) -> None:
        """It answers within each event's deadline."""
        for event in _heard(hooks):
            ensure(not (await _tell(hooks, event)).late, f"{event} got no answer within {SPEC.terms()[event].deadline_s:g} s")

    @law()
    async def test_answers_are_as_declared(self, hooks: Hooks) -> None:
        """An event is answered by what the contract says, or by None."""
        for event in _heard(hooks):
            answer, kind = (await _tell(hooks, event)).answer, ANSWERS.get(event)
            ensure(answer is None or (kind is not None and isinstance(answer, kind)),
                   f"{event} was answered by {answer!r}, and should be by {kind.__name__ if kind else 'nothing'} or None")

    @law()
    async def test_vetoes_give_a_reason(self, hooks: Hooks) -> None:
        """Who refuses says why, in a sentence for the user."""
        for event in _heard(hooks):
            veto = (await _tell(hooks, event)).veto
            ensure(veto is None or veto.strip(), f"{event} was refused without a reason")

    @law(Weight.RECOMMENDED)
    async def test_notices_are_not_refused(self, hooks: Hooks) -> None:
        """It refuses nothing that has happened already."""
        for event in _heard(hooks):
            if SPEC.terms()[event].on_error is OnError.IGNORE:
                veto = (await _tell(hooks, event)).veto
                ensure(veto is None, f"{event} tells what has happened; refusing it ({veto}) changes nothing")

    @law()
    async def test_it_leaves_arguments_alone(self, hooks: Hooks) -> None:
        """It changes nothing in what it is told, which others hear too."""
        for event in _heard(hooks):
            await leaves_alone(EXAMPLES[event], lambda told, event=event: _tell(hooks, event, told))  # type: ignore[misc]  # a default

    @law(Weight.RECOMMENDED)
    async def test_it_hears_several_at_once(self, hooks: Hooks) -> None:
        """It hears an event while it still thinks about another."""
        for event in _heard(hooks):
            alone = await _tell(hooks, event)
            together = await at_once(lambda event=event: _tell(hooks, event))  # type: ignore[misc]  # a default
            faults = [said.fault for said in together if said.fault and not alone.fault]
            ensure(not faults, f"{event} failed when it came several times at once: {faults[0] if faults else ''}")

    @law(Weight.RECOMMENDED)
    async def test_it_lets_others_run(self, hooks: Hooks) -> None:
        """While it thinks, the platform goes on: it blocks nobody."""
        for event in _heard(hooks):
            await lets_others_run(lambda event=event: _tell(hooks, event), self.still_s)  # type: ignore[misc]  # a default

    @law()
    async def test_it_keeps_secrets(self, hooks: Hooks) -> None:
        """Passwords, tokens and the users' variables reach no log, no output and no reason."""
        for event in _heard(hooks):
            with _listening() as heard:
                said = await _tell(hooks, event)
            ensure(SECRET not in "".join(heard) + (said.veto or "") + said.fault, f"{event} gave a secret away")


@dataclass(frozen=True, slots=True)
class Said:
    """What came of one event. veto: the reason of a refusal. late: no answer within the deadline."""

    answer: Any = None
    veto: str | None = None
    fault: str = ""
    late: bool = False


async def _tell(hooks: Hooks, event: str, arguments: Mapping[str, Any] | None = None) -> Said:
    try:
        return Said(await getattr(hooks, event)(**(copy.deepcopy(EXAMPLES[event]) if arguments is None else arguments)))
    except Reject as veto:
        return Said(veto=str(veto))  # as the plugin said it, without what the platform puts in its place
    except Failure as veto:
        return Said(veto=veto.message)
    except PluginFault as fault:
        return Said(fault=str(fault.__cause__ or fault), late=isinstance(fault.__cause__, TimeoutError) and "no answer" in str(fault))
    except asyncio.CancelledError as error:
        raise Violation(f"{event} was cancelled from within") from error


def _heard(hooks: Hooks) -> list[str]:
    return [event for event in SPEC.hooks() if hasattr(hooks, event)]


@contextmanager
def _listening() -> Iterator[list[str]]:
    """Collect everything that is logged, whatever the level, or printed."""
    heard: list[str] = []
    root, printed = logging.getLogger(), io.StringIO()

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(self.format(record))

    ear, level = Ear(), root.level
    root.addHandler(ear)
    root.setLevel(logging.DEBUG)
    try:
        with redirect_stdout(printed), redirect_stderr(printed):
            yield heard
    finally:
        root.removeHandler(ear)
        root.setLevel(level)
        heard.append(printed.getvalue())


_USER = User("u1", "ada", "user", "ada@example.com")
_SPEC = SessionSpec(SessionType.BATCH, "lab", "python:3.12", ("python3", "train.py"), {"API_KEY": SECRET}, {"cpu": 2000, "mem": 1 << 30})
_SESSION = Session(
    id="s1", name="lab", owner="ada", type=SessionType.BATCH, image="python:3.12", command=_SPEC.command, state=SessionState.RUNNING,
    result=None, exit_code=None, reason="", hold="", agent="agent1", priority=10, slots={"cpu": 2, "mem": 1 << 30}, env=_SPEC.env,
    network=Network.PRIVATE, mounts=(), tags=(), time_limit_s=None, progress="", created_at=1.8e9, started_at=1.8e9, ended_at=None)
_HEADERS = {"cookie": f"session={SECRET}", "x-api-key": SECRET, "host": "localhost"}
_CREDENTIALS = Credentials("ada", SECRET, {"otp": SECRET})
_PLACEMENT = Placement(_SESSION, _SPEC, ("agent1",))
EXAMPLES: Mapping[str, Mapping[str, Any]] = {
    "activate_manager": {},
    "pre_auth": {"request": Request("GET", "/v1/sessions", _HEADERS, "192.0.2.7")},
    "authorize": {"credentials": _CREDENTIALS},
    "post_authorize": {"user": _USER, "credentials": _CREDENTIALS},
    "pre_signup": {"signup": Signup("ada", "ada@example.com", {"department": "physics"})},
    "verify_password_format": {"user": "ada", "password": SECRET},
    "post_signup": {"user": _USER},
    "pre_enqueue_session": {"enqueue": Enqueue("s1", _USER, _SPEC)},
    "post_enqueue_session": {"enqueue": Enqueue("s1", _USER, _SPEC)},
    "predicate": {"placement": _PLACEMENT},
    "pre_start_session": {"placement": _PLACEMENT},
    "post_start_session": {"session": _SESSION},
    "pre_destroy_session": {"session": _SESSION, "user": _USER},
    "post_destroy_session": {"session": _SESSION},
    "post_agent_heartbeat": {"heartbeat": Heartbeat("agent1", True, {"cpu": 8}, {"cpu": 6.5})},
}
