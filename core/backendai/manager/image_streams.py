"""Fetching and building images on agents: one line of JSON for each step, and a last one with the outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack
from typing import Any

import msgspec
from aiohttp import web

from backendai.manager.access import Caller, Thing, Verb, require
from backendai.manager.answering import begin, body, while_feeding
from backendai.manager.context import Context
from backendai.manager.live import Conversation
from backendai.manager.operations.agents import find_agents
from backendai.manager.operations.streams import NDJSON, BuildQuery, Pull
from backendai.manager.rest import read_json, read_query
from backendai.model.errors import Failure
from backendai.model.image import check_image
from backendai.model.views import Agent
from backendai.wire import frames

LONGEST_S = 3600.0  # as long as the agent takes at most


class Lines:
    """A response of JSON lines that several tasks write."""

    def __init__(self) -> None:
        self.response = web.StreamResponse(headers={"Content-Type": NDJSON})
        self._turn = asyncio.Lock()

    async def write(self, **line: Any) -> None:
        """Write a line; wait while the client does not take it."""
        async with self._turn:
            await self.response.write(msgspec.json.encode(line) + b"\n")

    async def begin(self, request: web.Request) -> None:
        """Send the head; from here on an error is the last line."""
        await begin(request, self.response, self._broken)

    async def end(self, agents: Sequence[Agent], failures: Sequence[Failure | None]) -> web.StreamResponse:
        """Write the outcome; raise the first failure."""
        if failed := [(agent, failure) for agent, failure in zip(agents, failures, strict=True) if failure is not None]:
            agent, failure = failed[0]
            raise Failure(failure.code, f"{agent.name}: {failure.message}")
        await self.write(done=True, agents=[agent.name for agent in agents])
        await self.response.write_eof()
        return self.response

    async def _broken(self, failure: Failure) -> None:
        await self.write(error={"code": failure.code, "message": failure.message})
        await self.response.write_eof()


async def pull(context: Context, caller: Caller, request: web.Request) -> web.StreamResponse:
    """Fetch an image onto one agent or all."""
    wanted = await read_json(request, Pull)
    image = check_image(wanted.image)
    agents = await _capable(context, caller, wanted.agent, "pull")
    lines = Lines()
    await lines.begin(request)

    async def fetch(agent: Agent) -> Failure | None:
        try:
            async with context.live.open(agent.id, frames.Verb.PULL, {"image": image}) as conversation:
                return await _watch(agent, conversation, lines)
        except Failure as failure:
            return failure

    return await lines.end(agents, await _all(map(fetch, agents)))


async def build(context: Context, caller: Caller, request: web.Request) -> web.StreamResponse:
    """Build an image from the tar of a folder on one agent or all; each gets the same bytes as they come."""
    query = read_query(request, BuildQuery)
    name = check_image(query.name)
    agents = await _capable(context, caller, query.agent, "build")
    lines = Lines()
    async with AsyncExitStack() as stack:
        conversations = [await stack.enter_async_context(context.live.open(a.id, frames.Verb.BUILD, {"name": name})) for a in agents]
        await lines.begin(request)
        watched = _all(_watch(a, c, lines) for a, c in zip(agents, conversations, strict=True))
        failures = await while_feeding(_feed(request, conversations), watched)
    return await lines.end(agents, failures)


async def _all(each: Iterable[Coroutine[Any, Any, Failure | None]]) -> list[Failure | None]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one) for one in each]
    return [task.result() for task in tasks]


async def _feed(request: web.Request, conversations: Sequence[Conversation]) -> None:
    """Give the request's body to everyone who still takes it; what an agent that fell out says, its reader knows."""
    listening = list(conversations)
    async for data in body(request):
        for conversation in list(listening):
            try:
                await conversation.send(data)
            except Failure:
                listening.remove(conversation)
    for conversation in listening:
        try:
            await conversation.say(eof=True)
        except Failure:
            continue


async def _watch(agent: Agent, conversation: Conversation, lines: Lines) -> Failure | None:
    """Pass on progress until the end; return what went wrong."""
    try:
        async with asyncio.timeout(LONGEST_S):
            async for message in conversation.listen():
                if isinstance(message, dict) and "progress" in message:
                    await lines.write(agent=agent.name, progress=message["progress"])
    except Failure as failure:
        return failure
    except TimeoutError:
        return Failure("deadline", f"It took longer than {LONGEST_S:g} s.")
    except ConnectionError:
        return Failure("unavailable", "The client has gone.")
    return None


async def _capable(context: Context, caller: Caller, wanted: str | None, feature: str) -> Sequence[Agent]:
    """Return the agents to do it on. The one that is named may say for itself why it cannot."""
    require(caller, Verb.CREATE, Thing("image"))
    agents = [agent for agent in await find_agents(context, wanted) if agent.connected]
    if not agents:
        raise Failure("unavailable", "No such agent is connected; see `bai agents`.")
    if wanted is None and not (agents := [agent for agent in agents if feature in agent.features]):
        raise Failure("unsupported", f"No connected agent can {feature} images; see `bai agents`.")
    return agents
