"""Commands that plugins bring."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from difflib import get_close_matches

from backendai.cli.screen import say
from backendai.model.errors import Failure
from backendai.plugin.errors import PluginFault
from backendai.plugin.host import PluginHost
from backendai.spec import cli_v10
from backendai.spec.cli_v10 import Cli, Command


def find_extra(name: str, known: Sequence[str]) -> Command:
    """Return the plugin command *name*; raise ``Failure('invalid-request')`` with what is near when there is none."""
    found = {command.name: command for command in extra_commands() if command.name not in known}
    if name in found:
        return found[name]
    near = get_close_matches(name, [*known, *found], 1)
    hint = f"did you mean `bai {near[0]}`?" if near else "see `bai --help`."
    raise Failure("invalid-request", f"There is no command {name!r}; {hint}")


def extra_commands() -> list[Command]:
    """Return the commands of every plugin that is up."""

    async def collect() -> list[Command]:
        host = PluginHost([cli_v10.SPEC])
        await host.start()
        try:
            return [command for plugin in host.each(cli_v10.SPEC).values() for command in _commands(plugin)]
        finally:
            await host.stop()

    return asyncio.run(collect())


def _commands(plugin: Cli) -> Sequence[Command]:
    """Return a plugin's commands; one that fails keeps nothing from the others."""
    try:
        return plugin.commands()
    except PluginFault:
        return ()  # the host has said so
    except Failure as failure:
        say(f"bai: {failure.message}")
        return ()
