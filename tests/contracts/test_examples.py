"""The example on each contract's page is installed, started by the platform's own host, called, and certified by the kit."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
import sys
from argparse import ArgumentParser
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from aiohttp.test_utils import TestClient, TestServer
from backendai.model.errors import Failure
from backendai.model.session import SessionSpec, SessionType
from backendai.plugin.discovery import Candidate
from backendai.plugin.host import configure, connect
from backendai.spec import Reject, Skip
from backendai.spec.accelerator_v21 import Grant
from backendai.spec.agentselector_v10 import PlacementView
from backendai.spec.hook_v20 import Enqueue, User
from backendai.spec.monitor_error_v10 import ErrorReport
from backendai.spec.monitor_stats_v10 import Metric, MetricKind
from backendai.spec.network_v10 import NetView
from backendai.spec.runtime_v10 import ContainerSpec, ContainerState
from backendai.spec.scheduler_v10 import Outcome, QueueView, Waiting
from backendai.spec.webapp_v20 import Site
from backendai.testing.check import check, kit_of

from tests.contracts import pages
from tests.contracts.surface import SPECS


def example(id: str) -> type[Any]:
    """Return the plugin of a page's example, which is its last class."""
    text = pages.page(SPECS[id]).read_text().partition("## Example")[2]
    block = re.search(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert block is not None
    module = sys.modules[f"example_{id}"] = ModuleType(f"example_{id}")
    exec(compile(block[1], f"{id}.md", "exec"), vars(module))
    own: list[type[Any]] = [thing for thing in vars(module).values() if isinstance(thing, type) and thing.__module__ == module.__name__]
    return own[-1]


@asynccontextmanager
async def started(id: str, **options: Any) -> AsyncIterator[Any]:
    """Run the example as the host does; give what a caller of the contract sees."""
    factory = example(id)
    found = Candidate(SPECS[id], factory.__name__.lower(), "example", "1", factory)
    plugin = configure(found, options)
    driver = connect(found, plugin, None)
    if hasattr(plugin, "setup"):
        await plugin.setup()
    yield driver
    if hasattr(plugin, "teardown"):
        await plugin.teardown()


OPTIONS: Mapping[str, Callable[[Path], dict[str, Any]]] = {
    "accelerator_v21": lambda folder: {"folder": str(folder), "pattern": "stick*"},
    "monitor_error_v10": lambda folder: {"path": str(folder / "errors")},
}


@pytest.mark.parametrize("id", SPECS)
def test_an_example_is_certified(id: str, tmp_path: Path) -> None:
    (tmp_path / "stick0").touch()
    options = OPTIONS[id](tmp_path) if id in OPTIONS else {}
    report = check(kit_of(id), example(id), options)
    assert (report.grade.value, [(result.law.name, result.why) for result in report.results if result.outcome == "fail"]) == ("A", [])


@pytest.mark.parametrize("id", SPECS)
def test_the_name_that_the_page_certifies_is_the_example_s(id: str) -> None:
    assert f"bai plugin check {id}.{example(id).__name__.lower()}\n" in pages.page(SPECS[id]).read_text()


async def test_scheduler_v10() -> None:
    waiting = tuple(Waiting(name, "ann", "p", 0, at, ((1000,),), limit) for name, at, limit in
                    [("endless", 1.0, None), ("hour", 2.0, 3600.0), ("minute", 3.0, 60.0)])
    async with started("scheduler_v10") as scheduler:
        talk = scheduler.attempts(QueueView(0.0, ("cpu",), waiting))
        assert next(talk).session == "minute"
        assert talk.send(Outcome.PLACED).session == "hour"
        with pytest.raises(StopIteration):
            talk.send(Outcome.BLOCKED)


async def test_agentselector_v10() -> None:
    one = np.ones((3, 1), dtype=np.int64)
    view = PlacementView(("cpu",), ("a", "b", "c"), np.array([1]), one, one, np.array([0, 0, 0]), np.array([7, 3, 9]))
    async with started("agentselector_v10") as selector:
        assert int(np.argmax(selector.scores(view))) == 1


async def test_network_v10() -> None:
    async with started("network_v10", bridge="br7", pool="10.9.0.0/28") as flat:
        plan = flat.plan(NetView("n", {"main1": "a", "sub1": "b"}, {"a": "192.0.2.1", "b": "192.0.2.2"}))
        assert plan.addresses.keys() == {"main1", "sub1"}
        assert (await flat.attach(plan, "a")).bridge == "br7"
        with pytest.raises(Failure, match=r"All of 10\.9\.0\.0/28 is taken"):
            flat.plan(NetView("m", {f"main{number}": "a" for number in range(14)}, {"a": "192.0.2.1"}, [plan]))


async def test_accelerator_v21(tmp_path: Path) -> None:
    for name in ("apex_0", "apex_1", "other"):
        (tmp_path / name).touch()
    async with started("accelerator_v21", folder=str(tmp_path)) as sticks:
        assert [device.id for device in await sticks.devices()] == ["apex_0", "apex_1"]
        (node,) = sticks.edits([Grant("apex_1", "stick.device", 1000)]).devices
        assert node.source == node.target == str(tmp_path / "apex_1")
    with pytest.raises(Skip, match="no folder"):
        async with started("accelerator_v21", folder=str(tmp_path / "absent")):
            pass


async def test_hook_v20(caplog: pytest.LogCaptureFixture) -> None:
    def enqueue(cores: int, role: str) -> Enqueue:
        return Enqueue("s", User("u", "ann", role), SessionSpec(SessionType.BATCH, "job", slots={"cpu": cores * 1000}))

    async with started("hook_v20", cores=4) as hooks:
        await hooks.pre_enqueue_session(enqueue(4, "user"))
        await hooks.pre_enqueue_session(enqueue(5, "superadmin"))
        with pytest.raises(Reject, match="You asked for 5 cores, and may have 4"):
            await hooks.pre_enqueue_session(enqueue(5, "user"))
        with caplog.at_level(logging.INFO):
            await hooks.post_destroy_session(type("Session", (), {"id": "s1", "owner": "ann", "state": "TERMINATED"})())
    assert caplog.messages == ["session s1 of ann ended as TERMINATED"]


async def test_monitor_stats_v10() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as daemon:
        daemon.bind(("127.0.0.1", 0))
        daemon.settimeout(10)
        async with started("monitor_stats_v10", port=daemon.getsockname()[1]) as monitor:
            await monitor.report([Metric("backendai.requests", MetricKind.COUNTER, 3.0, {"outcome": "ok"}),
                                  Metric("backendai.agents", MetricKind.GAUGE, 2.5)])
            assert [daemon.recv(100), daemon.recv(100)] == [b"backendai.requests:3|c|#outcome:ok", b"backendai.agents:2.5|g"]


async def test_monitor_error_v10(tmp_path: Path) -> None:
    path = tmp_path / "errors.jsonl"
    async with started("monitor_error_v10", path=str(path)) as monitor:
        await monitor.capture(ErrorReport("It broke.", KeyError("x"), "scheduler_v10.x", {"session": "s1"}))
        await monitor.capture(ErrorReport("Again."))
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"message": "It broke.", "error": "KeyError", "plugin": "scheduler_v10.x", "session": "s1"},
        {"message": "Again.", "error": "", "plugin": ""}]


async def test_cli_v10(capsys: pytest.CaptureFixture[str]) -> None:
    async with started("cli_v10") as plugin:
        (command,) = plugin.commands()
        parser = ArgumentParser()
        command.arguments(parser)
        assert command.run(parser.parse_args(["1536m"])) == 0
    assert capsys.readouterr().out == "1610612736 bytes, which is 1.5g\n"


class Sessions:
    """A platform with two sessions, one of which has a name that must not become a tag."""

    async def call(self, operation: str, arguments: Mapping[str, Any], token: str) -> Any:
        assert (operation, arguments, token) == ("sessions.list", {}, "t")
        return {"items": [{"name": "lab", "state": "RUNNING"}, {"name": "<b>", "state": "PENDING"}]}


async def test_webapp_v20() -> None:
    async with started("webapp_v20") as plugin:
        app = await plugin.create_app(Site("/board", "http://127.0.0.1", Sessions()))
        async with TestClient(TestServer(app)) as client:
            answer = await client.get("/", headers={"Authorization": "Bearer t"})
            assert "<li>lab: RUNNING</li><li>&lt;b&gt;: PENDING</li>" in await answer.text()


async def test_runtime_v10() -> None:
    async with started("runtime_v10") as runtime, aclosing(runtime.events({"a": "b"})) as events:
        made = await runtime.create(ContainerSpec("one", "nothing:latest", ("sleep", "9"), labels={"a": "b"}))
        next_event = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)  # it listens now
        await runtime.start(made)
        event = await next_event
        assert (event.container, event.state) == (made, ContainerState.RUNNING)
        await runtime.stop(made, "SIGTERM", 1.0)
        assert (await anext(events)).state is ContainerState.EXITED
        (now,) = await runtime.list({"a": "b"})
        assert (now.state, now.exit_code) == (ContainerState.EXITED, 143)
        await runtime.remove(made)
        assert await runtime.list({}) == []
