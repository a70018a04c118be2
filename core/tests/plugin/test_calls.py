"""A call through the host: the arguments it passes on, the deadline it keeps, whom it blames, and what many voices amount to."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from backendai.model.errors import Failure
from backendai.plugin.errors import PluginFault
from backendai.plugin.host import PluginHost, Settings
from backendai.spec import Arity, OnError, Reject, Spec, hook


class Bells:
    """A contract with a hook for each way of asking."""

    @hook(optional=True)
    def put(self, path: str, data: str, mode: int = 7) -> Any:
        """Take arguments, one with a default."""

    @hook(optional=True, deadline_s=0.05)
    async def fetch(self, path: str) -> Any:
        """Take a while."""

    @hook(optional=True, deadline_s=None)
    async def wait(self, seconds: float) -> Any:
        """Take as long as it takes."""

    @hook(optional=True, deadline_s=0.05, on_error=OnError.DENY)
    async def veto(self, user: str) -> Any:
        """Refuse or not."""

    @hook(optional=True, deadline_s=0.05, on_error=OnError.IGNORE)
    async def notice(self, news: str) -> None:
        """Hear."""

    @hook(optional=True, first=True, on_error=OnError.DENY)
    async def answer(self, question: str) -> str | None:
        """Answer."""


SPEC: Spec[Any] = Spec("bells", 10, Bells, Arity.MANY)
Ring = Callable[..., AbstractAsyncContextManager[PluginHost]]


@pytest.fixture
def ring(shelf: Any) -> Ring:
    @asynccontextmanager
    async def start(*bodies: str, on_fault: Any = None) -> AsyncIterator[PluginHost]:
        """Start one plugin for each body of a class, named a, b, c, ... in this order."""
        for name, body in zip("abcdef", bodies, strict=False):
            lines = "\n    ".join(body.strip().splitlines())
            shelf.install(SPEC.group, f"class It:\n    heard = []\n    {lines}\n", dist=f"bell-{name}", version="1.2", **{name: "It"})
        host = PluginHost((SPEC,), Settings(), on_fault)
        await host.start()
        assert [row.why for row in host.rows] == [""] * len(bodies)
        yield host
        await host.stop()

    return start


def body(hook: str, does: str, arguments: str = "", wait: str = "async ") -> str:
    return f"@hookimpl\n{wait}def {hook}(self{arguments}):\n    {does}"


@pytest.mark.parametrize(("takes", "tells", "answer"), [
    (", path, data, mode", "path, data, mode", ("p", "d", 7)),
    (", mode, path", "mode, path", (7, "p")),
    ("", "", ()),
    (", data", "data,", ("d",)),
    (", path, data, later=None", "path, data, later", ("p", "d", None)),
    (", path, mode=9", "path, mode", ("p", 7)),
    (", path, later=1, mode=9", "path, later, mode", ("p", 1, 9)),
])
async def test_a_plugin_takes_the_arguments_that_it_wants(ring: Ring, takes: str, tells: str, answer: Any) -> None:
    async with ring(body("put", f"return ({tells})", takes, wait="")) as host:
        put = host.each(SPEC)["a"].put
        assert put("p", "d") == put("p", data="d") == put(data="d", path="p") == put("p", "d", 7) == answer


@pytest.mark.parametrize("given", [
    ((), {}), (("p",), {}), (("p", "d", 7, 8), {}), (("p", "d"), {"mood": 1}), ((), {"data": "d"}), (("p",), {"mood": 1}),
])
async def test_a_call_against_the_contract_is_not_the_plugin_s_fault(ring: Ring, given: Any) -> None:
    faults: list[PluginFault] = []
    async with ring(body("put", "return 1", ", path, data", wait=""), on_fault=faults.append) as host:
        with pytest.raises(TypeError, match=r"Bells.put\(\) takes path, data, mode"):
            host.each(SPEC)["a"].put(*given[0], **given[1])
    assert faults == []


async def test_an_optional_hook_that_is_left_out_is_an_absent_attribute(ring: Ring) -> None:
    async with ring(body("fetch", "return 1")) as host:
        plugin = host.each(SPEC)["a"]
        assert hasattr(plugin, "fetch") and not hasattr(plugin, "put")
        assert host.all(SPEC).put("p", "d") == []
        assert repr(plugin) == "<bells_v10.a from bell-a 1.2>"


@pytest.mark.parametrize(("hook", "wait", "given"), [("put", "", ("p", "d")), ("fetch", "async ", ("p",))])
async def test_a_failure_is_blamed_on_the_plugin_with_its_distribution(ring: Ring, caplog: pytest.LogCaptureFixture, hook: str, wait: str,
                                                                       given: Any) -> None:
    faults: list[PluginFault] = []
    async with ring(body(hook, "raise KeyError('gone')", wait=wait), on_fault=faults.append) as host:
        with pytest.raises(PluginFault) as caught, caplog.at_level(logging.WARNING, logger="backendai"):
            answer = getattr(host.each(SPEC)["a"], hook)(*given)
            await answer
    fault = caught.value
    assert str(fault) == f"bells_v10.a (bell-a 1.2) failed in {hook}: KeyError: 'gone'"
    assert (fault.plugin, fault.dist, fault.hook) == ("bells_v10.a", "bell-a 1.2", hook)
    assert isinstance(fault.__cause__, KeyError)
    assert faults == [fault]
    assert [record.getMessage() for record in caplog.records] == [str(fault)]


@pytest.mark.parametrize(("hook", "wait", "given"), [("put", "", ("p", "d")), ("fetch", "async ", ("p",))])
@pytest.mark.parametrize(("said", "kind"), [("Reject('not you')", Reject), ("Failure('not-found', 'not you')", Failure)])
async def test_what_a_plugin_says_on_purpose_passes_through(ring: Ring, hook: str, wait: str, given: Any, said: str, kind: Any) -> None:
    faults: list[PluginFault] = []
    async with ring(body(hook, f"raise {said}", wait=wait), on_fault=faults.append) as host:
        with pytest.raises(kind, match="not you"):
            answer = getattr(host.each(SPEC)["a"], hook)(*given)
            await answer
    assert faults == []


async def test_a_missed_deadline_is_a_fault_that_says_so(ring: Ring) -> None:
    async with ring(body("fetch", "await asyncio.sleep(3600)")) as host:
        with pytest.raises(PluginFault, match=r"fetch: no answer within 0.05 s$") as caught:
            await host.each(SPEC)["a"].fetch("p")
    assert isinstance(caught.value.__cause__, TimeoutError)


async def test_a_plugin_s_own_timeout_is_not_the_deadline(ring: Ring) -> None:
    async with ring(body("fetch", "raise TimeoutError('my disk')")) as host:
        with pytest.raises(PluginFault, match=r"fetch: TimeoutError: my disk$"):
            await host.each(SPEC)["a"].fetch("p")


async def test_a_hook_without_deadline_may_take_long(ring: Ring) -> None:
    async with ring(body("wait", "await asyncio.sleep(seconds); return 'done'", ", seconds")) as host:
        assert await host.each(SPEC)["a"].wait(0.1) == "done"


async def test_the_caller_s_cancellation_is_nobody_s_fault(ring: Ring) -> None:
    faults: list[PluginFault] = []
    async with ring(body("wait", "await asyncio.sleep(3600)"), on_fault=faults.append) as host:
        call = asyncio.create_task(host.each(SPEC)["a"].wait(1))
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    assert faults == []


async def test_all_are_asked_in_order_and_every_answer_is_returned(ring: Ring) -> None:
    async with ring(*(body("veto", f"self.heard.append(user); return '{n}'", ", user") for n in "ab"), "pass") as host:
        assert await host.all(SPEC).veto("ann") == ["a", "b"]


async def test_without_a_plugin_nobody_objects(ring: Ring) -> None:
    async with ring() as host:
        everyone = host.all(SPEC)
        assert (await everyone.veto("ann"), await everyone.answer("?"), await everyone.notice("!")) == ([], None, None)


LISTENS = body("veto", "self.heard.append(user)", ", user")


@pytest.mark.parametrize(("does", "reason"), [
    ("raise Reject('not on Sundays')", "not on Sundays"),
    ("raise Reject('')", "A policy of this site refused it"),
    ("raise Failure('forbidden', 'ask your dean')", "ask your dean"),
    ("1 / 0", "The plugin bells_v10.a could not decide"),
    ("await asyncio.sleep(3600)", "The plugin bells_v10.a could not decide"),
])
async def test_a_veto_or_any_failure_where_the_terms_deny_refuses(ring: Ring, does: str, reason: str) -> None:
    async with ring(body("veto", does), LISTENS) as host:
        with pytest.raises(Reject) as veto:
            await host.all(SPEC).veto("ann")
        assert veto.value.reason.startswith(reason)
        later = next(row.plugin for row in host.rows if row.id == "bells_v10.b")
        assert later.heard == []


async def test_a_failure_where_the_terms_raise_is_the_caller_s(ring: Ring) -> None:
    async with ring(body("fetch", "1 / 0")) as host:
        with pytest.raises(PluginFault):
            await host.all(SPEC).fetch("p")


async def test_a_notice_reaches_everybody_whatever_others_do(ring: Ring) -> None:
    faults: list[PluginFault] = []
    notices = ["1 / 0", "raise Reject('no')", "raise Failure('conflict', 'no')", "await asyncio.sleep(3600)", "self.heard.append(news)"]
    async with ring(*(body("notice", does, ", news") for does in notices), on_fault=faults.append) as host:
        assert await host.all(SPEC).notice("it rains") is None
        assert next(row.plugin for row in host.rows if row.id == "bells_v10.e").heard == ["it rains"]
    assert sorted(fault.plugin for fault in faults) == ["bells_v10.a", "bells_v10.d"]


async def test_a_notice_is_told_to_all_at_once(ring: Ring) -> None:
    """Each waits for the other, which would take for ever if they were told one after the other."""
    meets = body("notice", "await news.wait(); self.heard.append('met')", ", news")
    async with ring(meets, meets) as host:
        await host.all(SPEC).notice(asyncio.Barrier(2))
        assert [row.plugin.heard for row in host.rows] == [["met"], ["met"]]


@pytest.mark.parametrize(("answers", "expected", "asked"), [
    ((None, "second", "third"), "second", 2), (("", "second"), "", 1), ((None, None), None, 2), ((0, 1), 0, 1),
])
async def test_the_first_answer_that_is_not_none_wins(ring: Ring, answers: tuple[Any, ...], expected: Any, asked: int) -> None:
    bodies = (body("answer", f"self.heard.append(1); return {answer!r}") for answer in answers)
    async with ring(*bodies) as host:
        assert await host.all(SPEC).answer("?") == expected
        assert sum(len(row.plugin.heard) for row in host.rows) == asked


async def test_a_failing_answer_is_a_veto_and_not_silence(ring: Ring) -> None:
    """Falling through to the next would let everybody in while the plugin that checks is broken."""
    async with ring(body("answer", "1 / 0"), body("answer", "return 'ann'")) as host:
        with pytest.raises(Reject, match=r"bells_v10\.a could not decide"):
            await host.all(SPEC).answer("?")
