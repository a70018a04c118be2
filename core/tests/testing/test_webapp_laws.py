"""Each law of a web application catches the application that breaks it, and no other law does."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from backendai.model.errors import Failure
from backendai.spec import hookimpl
from backendai.spec.webapp_v20 import Site

sys.path.insert(0, str(Path(__file__).parent))  # for broken: pytest's importlib mode adds nothing itself
import broken

SPEC = "webapp_v20"


class Good:
    """A page that links to itself, sets a cookie and asks the platform."""

    def __init__(self) -> None:
        self.app: web.Application | None = None
        self.tasks: set[asyncio.Task[None]] = set()

    @hookimpl
    async def create_app(self, site: Site) -> web.Application:
        async def page(request: web.Request) -> web.Response:
            answer = web.Response(text=self.page(site), content_type="text/html")
            self.sign(answer, site)
            return answer

        async def sessions(request: web.Request) -> web.Response:
            token = self.token(request)
            try:
                return web.json_response(await site.platform.call("sessions.list", {}, token))
            except Failure as failure:
                return web.json_response(failure.problem(), status=failure.kind.status)

        async def text(request: web.Request) -> web.Response:
            return self.text(request.match_info["name"])

        app = web.Application()
        app.router.add_get("/", page)
        app.router.add_get("/sessions", sessions)
        app.router.add_get("/text/{name:.*}", text)
        self.extend(app)
        return app

    def page(self, site: Site) -> str:
        return f'<a href="{site.prefix}/sessions">sessions</a> <img src="//example.com/x.png">'

    def sign(self, answer: web.Response, site: Site) -> None:
        answer.set_cookie("theme", "dark", path=site.prefix)

    def token(self, request: web.Request) -> str:
        return request.headers.get("Authorization", "").removeprefix("Bearer ")

    def text(self, name: str) -> web.Response:
        raise web.HTTPNotFound

    def extend(self, app: web.Application) -> None:
        """Add nothing."""


class Other(Good):
    @hookimpl
    async def create_app(self, site: Site) -> Any:
        return {"app": await super().create_app(site)}


class Keeper(Good):
    @hookimpl
    async def create_app(self, site: Site) -> web.Application:
        if self.app is None:
            self.app = await super().create_app(site)
        return self.app


class Fragile(Good):
    def extend(self, app: web.Application) -> None:
        async def live(app: web.Application) -> AsyncIterator[None]:
            yield
            raise RuntimeError("it hangs on")

        app.cleanup_ctx.append(live)


class Untidy(Good):
    def extend(self, app: web.Application) -> None:
        async def start(app: web.Application) -> None:
            self.tasks.add(asyncio.create_task(asyncio.sleep(60)))

        app.on_startup.append(start)


class Naive(Good):
    def extend(self, app: web.Application) -> None:
        @web.middleware
        async def count(request: web.Request, handler: Any) -> web.StreamResponse:
            int(request.query.get("page", "1").replace("\0", "x"))
            return await handler(request)

        app.middlewares.append(count)


class Open(Good):
    def text(self, name: str) -> web.Response:
        path = Path("/srv") / name
        return web.Response(text=path.read_text()) if path.is_file() else web.Response(status=404)


class Master(Good):
    def token(self, request: web.Request) -> str:
        return "master-token"


class Rooted(Good):
    def page(self, site: Site) -> str:
        return '<a href="/sessions">sessions</a>'


class Sticky(Good):
    def sign(self, answer: web.Response, site: Site) -> None:
        answer.set_cookie("theme", "dark")


MUTANTS = broken.general(SPEC, Good) | {
    "test_it_makes_an_application": Other,
    "test_each_is_new": Keeper,
    "test_it_starts_and_cleans_up": Fragile,
    "test_it_leaves_nothing_running": Untidy,
    "test_no_request_breaks_it": Naive,
    "test_no_path_leads_out": Open,
    "test_it_asks_for_whom_it_serves": Master,
    "test_links_stay_below_its_prefix": Rooted,
    "test_cookies_stay_below_its_prefix": Sticky,
}


@pytest.mark.parametrize(("law", "mutant"), broken.cases(SPEC, MUTANTS))
def test_a_law_catches_its_mutant(law: str, mutant: Any) -> None:
    broken.breaks_only(SPEC, law, mutant)


def test_a_good_one_holds_all() -> None:
    broken.holds_all(SPEC, Good)
