"""Plugins that listen, veto, vouch, serve pages and take reports; and secrets that must reach none of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web
from backendai.manager import metrics
from backendai.manager.config import ManagerConfig
from backendai.manager.logs import KeyValue, scrub
from backendai.plugin.discovery import Candidate
from backendai.plugin.host import Settings
from backendai.spec import Reject, Spec, hook_v20, hookimpl, monitor_error_v10, monitor_stats_v10, webapp_v20


class Listener:
    """Every event that the manager's own operations fire."""

    heard: list[tuple[str, Any]]

    def __init__(self) -> None:
        self.heard = []
        type(self).last = self  # type: ignore[attr-defined]  # the test looks at it

    @hookimpl
    async def pre_auth(self, request: hook_v20.Request) -> str | None:
        return request.headers.get("x-site-user")

    @hookimpl
    async def pre_enqueue_session(self, enqueue: hook_v20.Enqueue) -> None:
        self.heard.append(("pre_enqueue", enqueue.spec.name))
        if enqueue.spec.name == "forbidden":
            raise Reject("This site runs nothing of that name.")
        if enqueue.spec.name == "where":
            user = enqueue.user
            raise Reject(f"{user.name} of {user.domain} in {', '.join(user.projects)}: {enqueue.domain}/{enqueue.project}")
        if enqueue.spec.name == "crash":
            raise RuntimeError("broken plugin")

    @hookimpl
    async def post_enqueue_session(self, enqueue: hook_v20.Enqueue) -> None:
        self.heard.append(("post_enqueue", enqueue.spec.name))

    @hookimpl
    async def pre_destroy_session(self, session: Any, user: hook_v20.User) -> None:
        if session.name == "keep":
            raise Reject(f"{user.name} may not stop it.")


class Page:
    """A web application that asks the platform in its user's name."""

    @hookimpl
    async def create_app(self, site: webapp_v20.Site) -> web.Application:
        async def show(request: web.Request) -> web.Response:
            token = request.headers["X-Token"]
            made = await site.platform.call("sessions.create", {"type": "batch", "name": "by-page"}, token)
            listed = await site.platform.call("sessions.list", {}, token)
            return web.json_response({"prefix": site.prefix, "made": made["id"], "listed": [i["id"] for i in listed["items"]]})

        app = web.Application()
        app.router.add_get("/show", show)
        return app


class Errors:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.reports: list[monitor_error_v10.ErrorReport] = []
        type(self).last = self  # type: ignore[attr-defined]  # the test looks at it

    @hookimpl
    async def capture(self, report: monitor_error_v10.ErrorReport) -> None:
        self.reports.append(report)


class Stats:
    """Keeps the batches it is given."""

    def __init__(self) -> None:
        self.batches: list[Sequence[monitor_stats_v10.Metric]] = []
        self.came = asyncio.Event()
        type(self).last = self  # type: ignore[attr-defined]  # the test looks at it

    @hookimpl
    async def report(self, metrics: Sequence[monitor_stats_v10.Metric]) -> None:
        self.batches.append(metrics)
        self.came.set()


PLUGINS: Mapping[str, tuple[str, type]] = {
    hook_v20.SPEC.id: ("listener", Listener), webapp_v20.SPEC.id: ("page", Page),
    monitor_error_v10.SPEC.id: ("errors", Errors), monitor_stats_v10.SPEC.id: ("stats", Stats),
}


@pytest.fixture
def config(config: ManagerConfig, monkeypatch: pytest.MonkeyPatch) -> ManagerConfig:
    """A manager where a distribution with one plugin of each kind is installed."""

    def find(spec: Spec[Any], disabled: Any = ()) -> list[Candidate]:
        found = PLUGINS.get(spec.id)
        return [Candidate(spec, found[0], "site-plugins", "1", found[1], "", off=False)] if found else []

    monkeypatch.setattr("backendai.plugin.host.find", find)
    return replace(config, plugins=Settings(required=frozenset({"hook_v20.listener"})))


async def test_a_veto_refuses_a_session_with_the_plugins_reason(served: Any) -> None:
    problem = await served.call("POST", "/v1/sessions", {"type": "batch", "name": "forbidden"}, status=422)
    assert problem["code"] == "rejected" and problem["detail"] == "This site runs nothing of that name."
    assert (await served.call("GET", "/v1/sessions?all=true"))["items"] == []


async def test_a_plugin_that_fails_in_a_veto_denies_and_is_reported(served: Any) -> None:
    problem = await served.call("POST", "/v1/sessions", {"type": "batch", "name": "crash"}, status=422)
    assert problem["code"] == "rejected" and "hook_v20.listener" in problem["detail"]
    await served.context.tasks.close(5.0)
    report = Errors.last.reports[0]  # type: ignore[attr-defined]  # set by the plugin
    assert report.plugin == "hook_v20.listener" and "broken plugin" in report.message
    assert "backendai_plugin_faults_total" in await served.call("GET", "/metrics")


async def test_a_plugin_is_told_where_a_user_and_a_session_belong(served: Any) -> None:
    await served.call("POST", "/v1/domains", {"name": "physics"}, status=201)
    await served.call("POST", "/v1/projects", {"name": "optics", "domain": "physics"}, status=201)
    await served.call("POST", "/v1/users", {"name": "lise", "domain": "physics", "project": "optics"}, status=201)
    headers = {"X-Site-User": "lise"}
    async with served.http.post(served.url + "/v1/sessions", json={"type": "batch", "name": "where"}, headers=headers) as response:
        assert (await response.json(content_type=None))["detail"] == "lise of physics in default, optics: physics/optics"


async def test_notices_follow_the_commit(served: Any) -> None:
    await served.session(name="one")
    await served.context.tasks.close(5.0)
    assert Listener.last.heard == [("pre_enqueue", "one"), ("post_enqueue", "one")]  # type: ignore[attr-defined]  # set by the plugin


async def test_a_create_that_is_sent_again_asks_no_plugin_again(served: Any) -> None:
    for _ in range(2):
        await served.call("POST", "/v1/sessions", {"type": "batch", "name": "one"}, status=201, Idempotency_Key="k")
    await served.context.tasks.close(5.0)
    assert len(Listener.last.heard) == 2  # type: ignore[attr-defined]  # set by the plugin


async def test_a_veto_keeps_a_session_from_being_stopped(served: Any) -> None:
    made = await served.session(name="keep")
    problem = await served.call("POST", "/v1/sessions/keep/stop", status=422)
    assert problem["detail"] == "admin may not stop it."
    assert not (await served.context.sessions.load(made["id"])).stop


async def test_a_plugin_may_vouch_for_a_request_without_a_token(served: Any) -> None:
    await served.user("eve")
    for name, status in (("eve", 200), ("nobody", 401)):
        async with served.http.get(served.url + "/v1/whoami", headers={"X-Site-User": name}) as response:
            assert response.status == status
            if status == 200:
                assert (await response.json())["name"] == "eve"


async def test_a_web_application_acts_for_its_user(served: Any) -> None:
    async with served.http.get(served.url + "/page/show", headers={"X-Token": served.token}) as response:
        shown = await response.json()
    assert shown["prefix"] == "/page" and shown["listed"] == [shown["made"]]
    async with served.http.get(served.url + "/page/show", headers={"X-Token": "bai_wrong"}) as response:
        assert response.status == 401 and (await response.json(content_type=None))["code"] == "unauthenticated"


async def test_monitors_get_gauges_and_what_was_added(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "REPORT_S", 0.01)
    await served.session()
    task = asyncio.create_task(metrics.report_for_ever(served.context))
    stats = Stats.last  # type: ignore[attr-defined]  # set by the plugin
    try:
        for _ in range(2):
            async with asyncio.timeout(10.0):
                await stats.came.wait()
            stats.came.clear()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    def of(batch: Sequence[Any], operation: str) -> list[float]:
        return [m.value for m in batch if m.name == "backendai.requests" and m.tags.get("operation") == operation]

    assert of(stats.batches[0], "sessions.create") == [1.0] and of(stats.batches[1], "sessions.create") == []
    assert any(m.name == "backendai.sessions" and m.tags == {"state": "PENDING"} and m.value == 1 for m in stats.batches[1])


async def test_secrets_reach_no_log_no_answer_and_no_monitor(served: Any, monkeypatch: pytest.MonkeyPatch,
                                                             caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret = served.token

    async def fail(self: Any, id: str) -> None:
        raise RuntimeError(f"a driver that quotes {secret} and postgresql://u:hunter2@h/d")

    monkeypatch.setattr(type(served.context.sessions), "load", fail)
    problem = await served.call("GET", "/v1/sessions/" + "0" * 26, status=500)
    await served.context.tasks.close(5.0)
    written = "\n".join(KeyValue().format(record) for record in caplog.records)
    told = Errors.last.reports[-1].message  # type: ignore[attr-defined]  # set by the plugin
    assert "RuntimeError" in written and "RuntimeError" in told
    assert Errors.last.reports[-1].error is None  # type: ignore[attr-defined]  # set by the plugin
    for place in (written, told, str(problem)):
        assert secret not in place and "hunter2" not in place


def test_a_log_line_is_key_value_and_one_line() -> None:
    record = logging.LogRecord("x", logging.INFO, "f", 1, 'said "hi"\nbye', (), None)
    record.session = "s1"
    record.fields = {"count": 3, "token": "bai_" + "a" * 43}
    line = KeyValue().format(record)
    assert "\n" not in line and 'msg="said \\"hi\\"\\nbye"' in line and "session=s1 count=3 token=bai_***" in line
    assert scrub("plain text") == "plain text"


