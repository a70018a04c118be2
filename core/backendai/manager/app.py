"""The web application: derived routes, hand-written ones, and the pages for machines."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from aiohttp import web

from backendai.manager import sse
from backendai.manager.access import Thing, Verb, require
from backendai.manager.auth import authenticate, authenticate_token
from backendai.manager.context import Context
from backendai.manager.metrics import exposition
from backendai.manager.openapi import document
from backendai.manager.operations.registry import Registry, invoke, read_input
from backendai.manager.rest import CONTEXT, outermost, routes
from backendai.model.errors import Failure
from backendai.plugin.errors import PluginFault
from backendai.spec.webapp_v20 import SPEC as WEBAPP
from backendai.spec.webapp_v20 import Site

HEARTBEAT_S = 60.0  # the orchestrator resyncs every 10 s; one that was silent for so long does not work


class LocalPlatform:
    """The platform as a web application plugin sees it (``spec.webapp_v20.Platform``)."""

    def __init__(self, context: Context, registry: Registry) -> None:
        self._context = context
        self._registry = registry

    async def call(self, operation: str, arguments: Mapping[str, Any], token: str) -> Any:
        """Run *operation* for the user whose *token* it is; return plain data."""
        caller = await authenticate_token(self._context, token)
        found = self._registry.get(operation)
        output = await invoke(self._context, caller, found, read_input(found, arguments))
        return msgspec.to_builtins(output)


def make_app(context: Context, registry: Registry, more: Iterable[web.RouteDef] = ()) -> web.Application:
    """Return the application with every route but those of the web application plugins. more: hand-written routes."""
    app = web.Application(middlewares=[outermost])
    app[CONTEXT] = context
    described = msgspec.json.encode(document(registry))

    async def openapi(_: web.Request) -> web.Response:
        return web.Response(body=described, content_type="application/json")

    app.add_routes([*routes(registry), *more, web.get("/v1/events", sse.watch), web.get("/v1/openapi.json", openapi),
                    web.get("/healthz", health), web.get("/readyz", ready), web.get("/metrics", metrics)])
    return app


async def mount_webapps(app: web.Application, context: Context, registry: Registry, url: str) -> None:
    """Add each web application plugin's pages under its name; one that fails is left out."""
    platform = LocalPlatform(context, registry)
    for name, webapp in list(context.host.each(WEBAPP).items()):
        prefix = f"/{name}"
        try:
            pages: object = await webapp.create_app(Site(prefix, url, platform))
        except (Failure, PluginFault) as error:
            await context.host.give_up(WEBAPP, name, str(error))
            continue
        if isinstance(pages, web.Application):
            app.add_subapp(prefix, pages)
        else:
            await context.host.give_up(WEBAPP, name, f"create_app returned {type(pages).__name__} and no aiohttp application")


async def health(_: web.Request) -> web.Response:
    """Say that this process is alive."""
    return web.json_response({"status": "ok"})


async def ready(request: web.Request) -> web.Response:
    """Say whether this manager can do its work: the database answers and the orchestrator beats."""
    context = request.app[CONTEXT]
    try:
        await context.store.ready()
    except Exception as error:
        raise Failure("unavailable", "The database does not answer.", detail=repr(error)) from error
    silent = context.clock() - context.heartbeat
    if silent > HEARTBEAT_S:
        raise Failure("unavailable", f"The orchestrator has been silent for {silent:.0f} s.")
    return web.json_response({"status": "ready"})


async def metrics(request: web.Request) -> web.Response:
    """Show the metrics, to administrators and to this machine."""
    context = request.app[CONTEXT]
    if "Authorization" in request.headers or not _is_local(request):
        require(await authenticate(context, request), Verb.READ, Thing("metrics"))
    return web.Response(body=await exposition(context), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


def _is_local(request: web.Request) -> bool:
    """Tell whether the request comes from this machine itself and not through a proxy on it."""
    try:
        local = ipaddress.ip_address(request.remote or "").is_loopback
    except ValueError:
        return False
    return local and not {"Forwarded", "X-Forwarded-For"} & set(request.headers)
