"""What becomes of a plugin: up, off, skip or broken, each with its reason, and never at its neighbours' cost."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from backendai.plugin import host as host_module
from backendai.plugin.errors import Incompatible, Missing
from backendai.plugin.host import PluginHost, Row, Settings, State
from backendai.spec import Arity, Spec, accelerator_v21, hook, scheduler_v10


class Toy:
    """A contract with one hook of each kind."""

    @hook()
    def name(self, given: str) -> str:
        """Return a name."""
        raise NotImplementedError

    @hook(optional=True, deadline_s=0.2)
    async def fetch(self, given: str) -> str:
        """Fetch something."""
        raise NotImplementedError

    @hook(optional=True)
    def count(self) -> Iterator[int]:
        """Count."""
        raise NotImplementedError

    @hook(optional=True)
    def flow(self) -> AsyncIterator[int]:
        """Flow."""
        raise NotImplementedError


ONE: Spec[Any] = Spec("toy", 1, Toy, Arity.ONE)
TWO: Spec[Any] = Spec("toy", 2, Toy, Arity.MANY)
GOOD = """
class Good:
    @hookimpl
    def name(self, given):
        return "good " + given
"""


@asynccontextmanager
async def started(*specs: Spec[Any], **settings: Any) -> AsyncIterator[PluginHost]:
    host = PluginHost(specs or (ONE,), Settings(**settings))
    await host.start()
    try:
        yield host
    finally:
        await host.stop()


def row(host: PluginHost, id: str) -> Row:
    return next(row for row in host.rows if row.id == id)


async def test_a_plugin_is_up_with_its_name_distribution_and_version(shelf: Any) -> None:
    shelf.install(ONE.group, GOOD, dist="my-toys", version="2.1", good="Good")
    async with started() as host:
        up = row(host, "toy_v1.good")
        assert (up.dist, up.version, up.state, up.why) == ("my-toys", "2.1", State.UP, "")
        assert host.one(ONE, "good").name("one") == "good one"
        assert list(host.each(ONE)) == ["good"]
    assert row(host, "toy_v1.good").state is State.OFF


async def test_a_disabled_plugin_is_off_and_never_imported(shelf: Any) -> None:
    shelf.install(ONE.group, "raise SystemExit('imported')", bad="Bad")
    async with started(disabled=frozenset({"toy_v1.bad"})) as host:
        assert row(host, "toy_v1.bad").state is State.OFF
        assert "disabled" in row(host, "toy_v1.bad").why
        assert shelf.imported == []
        with pytest.raises(Missing, match=r"toy_v1.bad is off: disabled"):
            host.one(ONE, "bad")


async def test_setup_may_skip_with_a_reason(shelf: Any) -> None:
    shelf.install(ONE.group, GOOD + """
    async def setup(self):
        raise Skip("no such hardware here")
    """, good="Good")
    async with started() as host:
        skipped = row(host, "toy_v1.good")
        assert (skipped.state, skipped.why) == (State.SKIP, "no such hardware here")
        with pytest.raises(Missing, match="is skip: no such hardware here"):
            host.one(ONE, "good")
        assert host.each(ONE) == {}


BROKEN = {
    "a module that raises": ("1 / 0", {"bad": "Bad"}, "ZeroDivisionError"),
    "a failed assertion at import": ("assert False, 'half installed'", {"bad": "Bad"}, "half installed"),
    "an exit at import": ("raise SystemExit('I go')", {"bad": "Bad"}, "I go"),
    "an attribute that is not there": ("", {"bad": "Bad"}, "Bad"),
    "a constructor that raises": ("class Bad:\n    def __init__(self):\n        raise OSError('no device node')", {"bad": "Bad"},
                                  "OSError: no device node"),
    "a required hook that is missing": ("class Bad: pass", {"bad": "Bad"}, "name() is not implemented"),
    "a hook that the contract does not have": ("class Bad:\n    @hookimpl\n    def nmae(self, given): pass", {"bad": "Bad"},
                                               "unknown hook 'nmae'"),
    "an argument that the contract does not have": ("class Bad:\n    @hookimpl\n    def name(self, gievn): pass", {"bad": "Bad"},
                                                    "'gievn'"),
    "a plain hook that is async": ("class Bad:\n    @hookimpl\n    async def name(self, given): pass", {"bad": "Bad"},
                                   "name() must not be async"),
    "an awaited hook that is not": (GOOD + "    @hookimpl\n    def fetch(self, given): pass", {"bad": "Good"},
                                    "fetch() must be async"),
    "an async generator where an awaited hook is due": (
        GOOD + "    @hookimpl\n    async def fetch(self, given):\n        yield 1", {"bad": "Good"}, "fetch() must be async"),
    "a stream that is awaited": (GOOD + "    @hookimpl\n    async def flow(self): pass", {"bad": "Good"}, "flow() must not be async"),
    "a wrapper": ("class Bad:\n    @hookimpl(wrapper=True)\n    def name(self, given):\n        return (yield)", {"bad": "Bad"}, "wrapper"),
    "a setup that raises": (GOOD + "    async def setup(self):\n        raise ValueError('no licence')", {"bad": "Good"},
                            "ValueError: no licence"),
    "a setup that is not awaited": (GOOD + "    def setup(self): pass", {"bad": "Good"}, "setup() must be async"),
}


@pytest.mark.parametrize("case", BROKEN)
async def test_a_broken_plugin_says_why_and_breaks_nobody_else(shelf: Any, case: str) -> None:
    source, names, word = BROKEN[case]
    for spec in (ONE, TWO):
        shelf.install(spec.group, source, dist="bad-toys", **names)
        shelf.install(spec.group, GOOD, dist="a-good", ahead="Good")
        shelf.install(spec.group, GOOD, dist="z-good", zebra="Good")
    async with started(ONE, TWO) as host:
        for spec in (ONE, TWO):
            bad = row(host, f"{spec.id}.bad")
            assert (bad.state, bad.dist) == (State.BROKEN, "bad-toys")
            assert word in bad.why
            assert list(host.each(spec)) == ["ahead", "zebra"]
            assert host.each(spec)["zebra"].name("z") == "good z"
        with pytest.raises(Missing, match="is broken"):
            host.one(ONE, "bad")


async def test_a_setup_that_hangs_is_broken_after_its_deadline(shelf: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_module, "LIFECYCLE_DEADLINE_S", 0.02)
    shelf.install(ONE.group, GOOD + "    async def setup(self):\n        await asyncio.sleep(3600)", slow="Good")
    async with started() as host:
        assert row(host, "toy_v1.slow").state is State.BROKEN
        assert row(host, "toy_v1.slow").why == "TimeoutError: setup() did not end within 0.02 s"


async def test_a_name_that_two_distributions_offer_is_broken_for_both(shelf: Any) -> None:
    shelf.install(ONE.group, GOOD, dist="toys-a", same="Good", fine="Good")
    shelf.install(ONE.group, GOOD, dist="toys-b", same="Good")
    async with started() as host:
        same = row(host, "toy_v1.same")
        assert (same.state, same.dist) == (State.BROKEN, "toys-a, toys-b")
        assert "toys-a and from toys-b; uninstall" in same.why
        assert list(host.each(ONE)) == ["fine"]


async def test_the_first_on_the_path_hides_an_older_copy_of_the_same_distribution(shelf: Any, tmp_path: Any,
                                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    shelf.install(ONE.group, GOOD, dist="My.Toys", version="1.0", good="Good")
    later = tmp_path / "later"
    later.mkdir()
    newer = type(shelf)(later)
    newer.install(ONE.group, GOOD, dist="my-toys", version="2.0", good="Good")
    shelf.modules += newer.modules
    monkeypatch.syspath_prepend(str(later))
    async with started() as host:
        assert (row(host, "toy_v1.good").state, row(host, "toy_v1.good").version) == (State.UP, "2.0")


async def test_what_is_installed_later_is_found(shelf: Any) -> None:
    """Nothing is remembered from one start to the next, in the process or on disk."""
    async with started() as host:
        assert host.rows == []
    shelf.install(ONE.group, GOOD, good="Good")
    async with started() as host:
        assert [row.id for row in host.rows] == ["toy_v1.good"]


@pytest.mark.parametrize(("source", "settings", "why"), [
    (GOOD, {"disabled": frozenset({"toy_v1.good"})}, "off: disabled by the configuration"),
    (GOOD + "    async def setup(self):\n        raise Skip('no GPU')", {}, "skip: no GPU"),
    ("class Good: pass", {}, "broken: Incompatible: name"),
    ("", {}, "broken: AttributeError"),
])
async def test_a_required_plugin_that_is_not_up_stops_the_process_with_the_reason(shelf: Any, source: str, settings: dict[str, Any],
                                                                                 why: str) -> None:
    shelf.install(ONE.group, source, good="Good")
    with pytest.raises(Missing, match=f"toy_v1.good is required and is {why}"):
        async with started(required=frozenset({"toy_v1.good"}), **settings):
            pass


STOPS = """
    class Good:
        def __init__(self):
            self.log = __import__("sys").shelf_log
        @hookimpl
        def name(self, given): return given
        async def setup(self):
            self.log.append("up " + type(self).__name__)
        async def teardown(self):
            self.log.append("down " + type(self).__name__)
    class Other(Good): pass
    class Sour(Good):
        async def teardown(self):
            await super().teardown()
            raise OSError("stuck")
    class Never(Good):
        async def teardown(self):
            await super().teardown()
            await asyncio.sleep(3600)
"""


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    words: list[str] = []
    monkeypatch.setattr(sys, "shelf_log", words, raising=False)
    return words


async def test_several_required_are_named_and_nothing_stays_up(shelf: Any, log: list[str]) -> None:
    shelf.install(ONE.group, STOPS, good="Good")
    with pytest.raises(Missing, match=r"toy_v1.absent is required and is not installed; toy_v1.gone is"):
        async with started(required=frozenset({"toy_v1.gone", "toy_v1.absent", "toy_v1.good"})):
            pass
    assert log == ["up Good", "down Good"]


async def test_a_cancelled_start_leaves_nothing_up(shelf: Any, log: list[str]) -> None:
    shelf.install(ONE.group, STOPS, a="Good")
    shelf.install(ONE.group, GOOD + "    async def setup(self):\n        await asyncio.sleep(3600)", dist="slow", b="Good")
    host = PluginHost((ONE,))
    starting = asyncio.create_task(host.start())
    await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert log == ["up Good", "down Good"]


async def test_stop_runs_in_reverse_and_one_that_fails_or_hangs_keeps_nobody_up(shelf: Any, log: list[str],
                                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    shelf.install(ONE.group, STOPS, a="Good", b="Sour", c="Never", d="Other")
    async with started() as host:
        assert log == ["up Good", "up Sour", "up Never", "up Other"]
        log.clear()
        monkeypatch.setattr(host_module, "LIFECYCLE_DEADLINE_S", 0.02)
    assert log == ["down Other", "down Never", "down Sour", "down Good"]
    assert {row.state for row in host.rows} == {State.OFF}
    await host.stop()
    assert len(log) == 4


async def test_a_plugin_that_is_given_up_is_taken_down_and_says_why(shelf: Any, log: list[str]) -> None:
    shelf.install(TWO.group, STOPS, a="Good", b="Sour", c="Other")
    async with started(TWO, required=frozenset({"toy_v2.c"})) as host:
        log.clear()
        await host.give_up(TWO, "b", "it makes no pages")
        assert log == ["down Sour"]
        assert (row(host, "toy_v2.b").state, row(host, "toy_v2.b").why) == (State.BROKEN, "it makes no pages")
        assert list(host.each(TWO)) == ["a", "c"] and host.all(TWO).name("x") == ["x", "x"]
        with pytest.raises(Missing, match=r"toy_v2.c is required and is broken: nor this one"):
            await host.give_up(TWO, "c", "nor this one")
    assert log == ["down Sour", "down Other", "down Good"]


async def test_plugins_come_in_the_operator_s_order_and_then_by_name(shelf: Any) -> None:
    shelf.install(TWO.group, GOOD, a="Good", b="Good", c="Good", d="Good")
    async with started(TWO, order=("toy_v2.d", "toy_v2.b")) as host:
        assert list(host.each(TWO)) == ["d", "b", "a", "c"]
    async with started(TWO) as host:
        assert list(host.each(TWO)) == ["a", "b", "c", "d"]


CONFIGURED = """
    class Good:
        @dataclass(frozen=True)
        class Config:
            count: int = 3
            words: tuple[str, ...] = ()
            def __post_init__(self):
                if self.count < 0:
                    raise ValueError("count must not be negative")
        def __init__(self, config):
            self.config = config
        @hookimpl
        def name(self, given): return f"{self.config.count} {self.config.words}"
    class Needy(Good):
        @dataclass(frozen=True)
        class Config:
            url: str
    class Plain:
        @hookimpl
        def name(self, given): return given
"""


@pytest.mark.parametrize(("options", "answer"), [
    ({}, "3 ()"), ({"count": 7}, "7 ()"), ({"words": ["a", "b"]}, "3 ('a', 'b')"),
])
async def test_options_arrive_as_the_plugin_s_own_config(shelf: Any, options: dict[str, Any], answer: str) -> None:
    shelf.install(ONE.group, CONFIGURED, good="Good")
    async with started(options={"toy_v1.good": options}) as host:
        assert host.one(ONE, "good").name("") == answer


@pytest.mark.parametrize(("name", "options", "words"), [
    ("Good", {"cuont": 7}, ("unknown option cuont", "known are: count, words")),
    ("Good", {"count": "7"}, ("option count", "`int`", "`str`")),
    ("Good", {"words": ["a", 1]}, ("option words[1]", "`str`")),
    ("Good", {"count": -1}, ("count must not be negative",)),
    ("Needy", {}, ("missing", "`url`")),
    ("Plain", {"size": 1}, ("unknown option size", "known are: none")),
])
async def test_a_wrong_option_breaks_that_plugin_and_is_named(shelf: Any, name: str, options: dict[str, Any],
                                                              words: tuple[str, ...]) -> None:
    shelf.install(ONE.group, CONFIGURED, bad=name, fine="Good")
    async with started(options={"toy_v1.bad": options}) as host:
        bad = row(host, "toy_v1.bad")
        assert bad.state is State.BROKEN
        assert [word for word in words if word not in bad.why] == []
        assert list(host.each(ONE)) == ["fine"]


@pytest.mark.parametrize("setting", ["disabled", "order", "options"])
async def test_a_setting_for_a_plugin_that_is_not_there_is_warned_of(shelf: Any, caplog: pytest.LogCaptureFixture, setting: str) -> None:
    shelf.install(ONE.group, GOOD, good="Good")
    ids = ["toy_v1.goood", "toy_v1.good", "other_v3.of-another-role"]
    given: Any = {id: {} for id in ids} if setting == "options" else frozenset(ids) if setting == "disabled" else ids
    with caplog.at_level(logging.WARNING, logger="backendai"):
        async with started(**{setting: given}):
            pass
    assert [record.getMessage() for record in caplog.records] == ["the configuration names the plugin toy_v1.goood, which is not installed"]


async def test_a_plugin_may_serve_two_versions(shelf: Any) -> None:
    shelf.install(ONE.group, GOOD, good="Good")
    shelf.install(TWO.group, GOOD, good="Good")
    async with started(ONE, TWO) as host:
        assert [row.id for row in host.rows] == ["toy_v1.good", "toy_v2.good"]
        assert host.one(ONE, "good").name("1") == host.each(TWO)["good"].name("1")


async def test_what_is_built_in_registers_like_a_stranger_s() -> None:
    async with started(accelerator_v21.SPEC, scheduler_v10.SPEC) as host:
        up = {row.id: row.dist for row in host.rows if row.state is State.UP}
    assert up["accelerator_v21.cpu"] == up["accelerator_v21.mem"] == "backendai"
    assert up["scheduler_v10.fifo"] == "backendai-scheduler"


CHOSEN = """
class Chosen:
    @dataclass(frozen=True)
    class Config:
        word: str = "usual"
    stopped = []
    def __init__(self, config):
        self.word = config.word
    async def teardown(self):
        self.stopped.append(self.word)
    @hookimpl
    def name(self, given):
        return self.word
"""


async def test_a_variant_has_options_of_its_own_and_is_stopped_with_the_host(shelf: Any) -> None:
    module = shelf.install("backendai_toy_v1", CHOSEN, chosen="Chosen")
    async with started(options={"toy_v1.chosen": {"word": "set"}}) as host:
        other = await host.variant(ONE, "chosen", {"word": "other"})
        assert (host.one(ONE, "chosen").name("x"), other.name("x")) == ("set", "other")
        assert await host.variant(ONE, "chosen", {"word": "other"}) is other
        assert await host.variant(ONE, "chosen", {}) is host.one(ONE, "chosen")
        host.check(ONE, "chosen", {"word": "fine"})
        wrong: Any = (("gone", {}, "not installed"), ("chosen", {"wort": "x"}, "known are: word"), ("chosen", {"word": 3}, "str"))
        for name, options, said in wrong:
            with pytest.raises((Missing, Incompatible), match=said):
                host.check(ONE, name, options)
    assert sorted(sys.modules[module].Chosen.stopped) == ["other", "set"]
