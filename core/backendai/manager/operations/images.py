"""Images, as the connected agents have them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from backendai.manager.access import Caller, Thing, Verb, require
from backendai.manager.context import Context
from backendai.manager.operations.agents import find_agents
from backendai.manager.operations.registry import Input, Nothing, declare
from backendai.model.errors import Failure
from backendai.model.image import check_image
from backendai.model.views import Agent, Image, Images
from backendai.wire import frames

ASK_S = 15.0
FIRST_S, LEARN_S = 60.0, 600.0  # when agents are asked by ourselves, after the start and from then on
AT_ONCE = 32  # agents that are then asked together: each answer is a stream of its own
REMOVE_S = 60.0


class RemoveImage(Input, frozen=True):
    """name: the image. agent: its id or name; none for every connected one."""

    name: str
    agent: str | None = None


class Removed(msgspec.Struct, frozen=True):
    """agents: where the image was removed."""

    agents: tuple[str, ...]


async def list_(context: Context, caller: Caller, input: Nothing) -> Images:
    """List the images of every connected agent."""
    require(caller, Verb.READ, Thing("image"))
    return await _read(context, [agent for agent in await find_agents(context) if agent.connected])


async def learn_for_ever(context: Context) -> None:
    """Ask what agents have now and then, so that what an image's labels demand is known when somebody asks for it."""
    await asyncio.sleep(FIRST_S)
    while True:
        there = [agent for agent in await find_agents(context) if agent.connected]
        for at in range(0, len(there), AT_ONCE):
            await _read(context, there[at:at + AT_ONCE])
        await asyncio.sleep(LEARN_S)


async def _read(context: Context, there: Sequence[Agent]) -> Images:
    """Ask these agents for their images, and remember the labels."""
    answers = await _ask_all(context, there, frames.Verb.IMAGES, {}, ASK_S)
    rows = []
    for agent in there:
        answer = answers[agent.name]
        if not isinstance(answer, Failure):
            found = [msgspec.convert({**image, "agent": agent.name}, Image) for image in answer.get("images", ())]
            context.images.learn(agent.id, [(image.name, image.labels) for image in found])
            rows += found
    silent = {name: answer.message for name, answer in answers.items() if isinstance(answer, Failure)}
    return Images(tuple(sorted(rows, key=lambda row: (row.name, row.agent))), silent)


async def remove(context: Context, caller: Caller, input: RemoveImage) -> Removed:
    """Remove an image from an agent, or from every connected one."""
    require(caller, Verb.CHANGE, Thing("image"))
    there = [agent for agent in await find_agents(context, input.agent) if agent.connected]
    if not there:
        raise Failure("unavailable", "No such agent is connected; see `bai agents`.")
    answers = await _ask_all(context, there, frames.Verb.REMOVE_IMAGE, {"image": check_image(input.name)}, REMOVE_S)
    done = tuple(name for name, answer in answers.items() if not isinstance(answer, Failure))
    if not done:
        raise next(answer for answer in answers.values() if isinstance(answer, Failure))
    return Removed(done)


async def _ask_all(context: Context, there: Sequence[Agent], verb: frames.Verb, arguments: Mapping[str, Any],
                   within_s: float) -> dict[str, Mapping[str, Any] | Failure]:
    """Ask every agent at once; one that fails or is late costs the others nothing."""

    async def ask(agent: Agent) -> Mapping[str, Any] | Failure:
        try:
            return await context.live.ask(agent.id, verb, arguments, within_s)
        except Failure as failure:
            return failure

    return dict(zip([agent.name for agent in there], await asyncio.gather(*map(ask, there)), strict=True))


OPERATIONS = (
    declare("images.list", list_, "GET", "/v1/images"),
    declare("images.delete", remove, "DELETE", "/v1/images", query=("name", "agent"), mutates=True),
)
