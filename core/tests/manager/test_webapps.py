"""Web applications that do not come up are left out, and the manager serves all the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web
from backendai.manager.config import ManagerConfig
from backendai.manager.serve import serve_manager
from backendai.model.errors import Failure
from backendai.plugin.discovery import Candidate
from backendai.plugin.errors import Missing
from backendai.plugin.host import Settings, State
from backendai.spec import Spec, hookimpl, webapp_v20


class Fine:
    @hookimpl
    async def create_app(self) -> web.Application:
        async def page(request: web.Request) -> web.Response:
            return web.Response(text="fine")

        app = web.Application()
        app.add_routes([web.get("/", page)])
        return app


class Faulty:
    @hookimpl
    async def create_app(self) -> web.Application:
        raise KeyError("template")


class Unlicensed:
    @hookimpl
    async def create_app(self) -> web.Application:
        raise Failure("forbidden", "There is no licence for the console.")


class Confused:
    @hookimpl
    async def create_app(self) -> str:
        return "<html>"


WHY = {"faulty": "KeyError: 'template'", "unlicensed": "There is no licence for the console.", "confused": "returned str"}


@pytest.fixture
def config(config: ManagerConfig, monkeypatch: pytest.MonkeyPatch) -> ManagerConfig:
    """A manager with one application that works among three that do not."""

    def find(spec: Spec[Any], disabled: Any = ()) -> list[Candidate]:
        pages = [Faulty, Fine, Unlicensed, Confused] if spec is webapp_v20.SPEC else []
        return [Candidate(spec, page.__name__.lower(), "site-plugins", "1", page) for page in pages]

    monkeypatch.setattr("backendai.plugin.host.find", find)
    return config


async def test_what_fails_is_left_out_with_its_reason(served: Any) -> None:
    for name in ("fine", *WHY):
        async with served.http.get(f"{served.url}/{name}/") as response:
            assert response.status == (200 if name == "fine" else 404)
    rows = {row.id: row for row in served.context.host.rows}
    for name, why in WHY.items():
        assert rows[f"webapp_v20.{name}"].state is State.BROKEN
        assert why in rows[f"webapp_v20.{name}"].why
    assert rows["webapp_v20.fine"].state is State.UP


async def test_a_required_one_that_fails_stops_the_manager(config: ManagerConfig) -> None:
    with pytest.raises(Missing, match=r"webapp_v20.confused is required and is broken: create_app returned str"):
        async with serve_manager(replace(config, plugins=Settings(required=frozenset({"webapp_v20.confused"})))):
            pass
