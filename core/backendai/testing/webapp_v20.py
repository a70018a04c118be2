"""The laws of a web application."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import ClientSession, CookieJar, web
from aiohttp.test_utils import TestServer
from yarl import URL

from backendai.model.errors import Failure
from backendai.spec.webapp_v20 import SPEC, Site, Webapp
from backendai.testing.laws import Conformance, NotHere, Violation, Weight, ensure, law

PREFIX = "/kit-prefix"
TOKEN = "kit-token"
_LINK = re.compile(r"""\s(?:href|src|action)\s*=\s*["'](/[^"'/][^"']*|/)["']""", re.IGNORECASE)
_PART = re.compile(r"\{[^{}]*\}")


@dataclass
class Echo:
    """A platform that has nothing, and remembers on whose behalf it was asked."""

    tokens: list[str] = field(default_factory=list)

    async def call(self, operation: str, arguments: Mapping[str, Any], token: str) -> Any:
        self.tokens.append(token)
        if token != TOKEN:
            raise Failure("unauthenticated", "Sign in first.")
        raise Failure("not-found", "There is nothing here.")


class WebappConformance(Conformance[Webapp]):
    """What a web application keeps to. It is mounted below a prefix on this machine's loopback and asked a few things."""

    spec = SPEC

    @law()
    async def test_it_makes_an_application(self, webapp: Webapp) -> None:
        """It returns an aiohttp application."""
        app: Any = await webapp.create_app(Site(PREFIX, "http://127.0.0.1", Echo()))
        ensure(isinstance(app, web.Application), f"it returned {type(app).__name__}")

    @law()
    async def test_each_is_new(self, webapp: Webapp) -> None:
        """It makes a new application each time: one cannot be mounted twice."""
        site = Site(PREFIX, "http://127.0.0.1", Echo())
        ensure(await webapp.create_app(site) is not await webapp.create_app(site), "it returned the same application again")

    @law()
    async def test_it_starts_and_cleans_up(self, webapp: Webapp) -> None:
        """Its start and clean-up signals run without a fault."""
        await _served_once(webapp, strict=True)

    @law()
    async def test_it_leaves_nothing_running(self, webapp: Webapp) -> None:
        """After its clean-up no task of its goes on."""
        before = asyncio.all_tasks()
        await _served_once(webapp)
        await asyncio.sleep(0.01)
        left = [task for task in asyncio.all_tasks() - before if not task.done()]
        for task in left:
            task.cancel()
        ensure(not left, f"{len(left)} tasks go on, such as {left[0].get_coro() if left else ''}")

    @law()
    async def test_no_request_breaks_it(self, webapp: Webapp) -> None:
        """Whatever is asked, the answer is not a fault (5xx)."""
        async with _served(webapp) as place:
            for method, path in [("GET", "/"), ("GET", "/no/such/page"), ("GET", "/?page=x%00&size=-1"), ("PATCH", "/"), ("GET", "/%ff")]:
                status, _, _ = await place.ask(method, path)
                ensure(status < 500, f"{method} {path} was answered with {status}")

    @law()
    async def test_no_path_leads_out(self, webapp: Webapp) -> None:
        """No path leads to files of the machine."""
        async with _served(webapp) as place:
            for path in place.paths("..%2f..%2f..%2f..%2f..%2f..%2f..%2f..%2fetc%2fpasswd", "%2fetc%2fpasswd"):
                _, text, _ = await place.ask("GET", path)
                ensure(not re.search(r"^root:[^:]*:0:0:", text, re.MULTILINE), f"GET {path} gave /etc/passwd away")

    @law()
    async def test_it_asks_for_whom_it_serves(self, webapp: Webapp) -> None:
        """It asks the platform on behalf of who asks it, with that token and no other."""
        async with _served(webapp) as place:
            for path in place.paths("x"):
                await place.ask("GET", path, token=TOKEN)
                await place.ask("GET", path)
        strange = set(place.platform.tokens) - {TOKEN, ""}
        ensure(not strange, "it asked the platform with a token that nobody sent")

    @law(Weight.RECOMMENDED)
    async def test_links_stay_below_its_prefix(self, webapp: Webapp) -> None:
        """The links of its first page lead below its own prefix, wherever it is mounted."""
        async with _served(webapp) as place:
            _, text, _ = await place.ask("GET", "/")
        stray = [link for link in _LINK.findall(text) if link != PREFIX and not link.startswith((f"{PREFIX}/", f"{PREFIX}?"))]
        ensure(not stray, f"its first page links to {', '.join(stray[:3])}; begin links with the site's prefix")

    @law(Weight.RECOMMENDED)
    async def test_cookies_stay_below_its_prefix(self, webapp: Webapp) -> None:
        """The cookies of its first page are for its own prefix, not for the whole site."""
        async with _served(webapp) as place:
            _, _, cookies = await place.ask("GET", "/")
        stray = sorted(name for name, path in cookies.items() if not path.startswith(PREFIX))
        ensure(not stray, f"the cookie {', '.join(stray)} is not for {PREFIX}; set its path")


@dataclass
class _Place:
    """Where the application is served."""

    app: web.Application
    client: ClientSession
    server: TestServer
    platform: Echo

    async def ask(self, method: str, path: str, token: str = "") -> tuple[int, str, dict[str, str]]:
        """Return the answer's status, its text, and its cookies with their paths. path: below the prefix, as it goes over the wire."""
        url = URL(str(self.server.make_url("/")).rstrip("/") + PREFIX + path, encoded=True)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with self.client.request(method, url, headers=headers, allow_redirects=False) as answer:
            cookies = {name: str(morsel["path"]) for name, morsel in answer.cookies.items()}
            return answer.status, await answer.text(errors="replace"), cookies

    def paths(self, *parts: str) -> list[str]:
        """Return each path of the application below the prefix, with *parts* in turn for what is variable."""
        found = {"/"}
        for resource in self.app.router.resources():
            path = resource.canonical.removeprefix(PREFIX)
            if isinstance(resource, web.StaticResource):
                path += "/{file}"
            found |= {_PART.sub(part, path) or "/" for part in parts}
        return sorted(found)


@asynccontextmanager
async def _served(webapp: Webapp, strict: bool = False) -> AsyncIterator[_Place]:
    """Serve the application on the loopback. strict: faults of its start and its clean-up are violations."""
    platform = Echo()
    app: Any = await webapp.create_app(Site(PREFIX, "http://127.0.0.1", platform))
    if not isinstance(app, web.Application):
        raise NotHere("test_it_makes_an_application is broken")
    parent = web.Application()
    parent.add_subapp(PREFIX, app)
    server = TestServer(parent, host="127.0.0.1")
    try:
        await server.start_server()
    except Exception as error:
        raise Violation(f"its start failed: {type(error).__name__}: {error}") from error
    try:
        async with ClientSession(cookie_jar=CookieJar(unsafe=True)) as client:
            yield _Place(app, client, server, platform)
    finally:
        try:
            await server.close()
        except Exception as error:
            if strict:
                raise Violation(f"its clean-up failed: {type(error).__name__}: {error}") from error


async def _served_once(webapp: Webapp, strict: bool = False) -> None:
    async with _served(webapp, strict) as place:
        await place.ask("GET", "/")
