"""Everything that can be wrong with a plugin, said once."""

from __future__ import annotations


class PluginError(Exception):
    """Base of every fault that the host raises."""


class Incompatible(PluginError):
    """The plugin does not fit the contract that it advertises."""


class Missing(PluginError):
    """A plugin that is needed is absent, switched off, skipped or broken."""


class PluginFault(PluginError):
    """A plugin failed while it was called. plugin: its id. dist: who ships it. hook: which call. The cause is chained."""

    def __init__(self, plugin: str, dist: str, hook: str, problem: str) -> None:
        super().__init__(f"{plugin} ({dist}) failed in {hook}: {problem}")
        self.plugin = plugin
        self.dist = dist
        self.hook = hook
