"""The accelerator plugins of this node: what their devices can lend, and what a container needs that holds some of it."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence

from backendai.agent.allocation import Allocator
from backendai.agent.container import merge
from backendai.model.errors import Failure
from backendai.model.slots import SlotDecl
from backendai.plugin.errors import PluginFault
from backendai.spec.accelerator_v21 import Accelerator, Device, Grant
from backendai.spec.runtime_v10 import Edits

log = logging.getLogger(__name__)


class Devices:
    """One voice for every accelerator plugin. A plugin that fails keeps the devices that it last had."""

    def __init__(self, plugins: Mapping[str, Accelerator]) -> None:
        self._plugins = plugins
        self.allocator = Allocator()

    async def discover(self) -> bool:
        """Ask every plugin for its devices; tell whether the capacity has changed."""
        before = self.allocator.capacity()
        devices: dict[str, Sequence[Device]] = dict(self.allocator.devices)
        slots = dict(self.allocator.slots)
        for name, plugin in self._plugins.items():
            try:
                slots |= {declared.name: (name, declared) for declared in plugin.slots()}
                devices[name] = await plugin.devices()
            except (Failure, PluginFault) as error:
                log.warning("the devices of %s are as they were: %s", name, error)
        self.allocator.slots, self.allocator.devices = slots, devices
        return self.allocator.capacity() != before

    def declarations(self) -> tuple[SlotDecl, ...]:
        """Return what the plugins say about their slots."""
        return tuple(declared for _, declared in self.allocator.slots.values())

    def edits(self, grants: Sequence[Grant]) -> Edits:
        """Return what a container with *grants* needs of every plugin."""
        return merge(self._plugins[name].edits(part) for name, part in self._parts(grants))

    async def prepare(self, container: str, grants: Sequence[Grant]) -> None:
        """Let every plugin concerned make its devices ready."""
        for name, part in self._parts(grants):
            if (prepare := getattr(self._plugins[name], "prepare", None)) is not None:
                await prepare(container, part)

    async def release(self, container: str, grants: Sequence[Grant]) -> None:
        """Let every plugin concerned clean up; a failure is logged by who blames it, raised, and tried again."""
        for name, part in self._parts(grants):
            if (release := getattr(self._plugins[name], "release", None)) is not None:
                await release(container, part)

    async def busy(self, held: Mapping[str, Sequence[Grant]]) -> dict[str, dict[str, float]]:
        """Return how busy the devices of each kernel are, 0 to 1, by slot: the mean over what it holds.

        What nobody measures is left out.
        """
        measured: dict[tuple[str, str], float] = {}
        for name, plugin in self._plugins.items():
            if (sample := getattr(plugin, "sample", None)) is None or not any(name in self.allocator.by_plugin(g) for g in held.values()):
                continue
            try:
                measured |= {(name, one.device): one.utilisation for one in await sample() if one.utilisation is not None}
            except (Failure, PluginFault) as error:
                log.info("the devices of %s are not measured: %s", name, error)
        found: dict[str, dict[str, float]] = {}
        for kernel, grants in held.items():
            sums: defaultdict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
            for name, part in self._parts(grants):
                for grant in part:
                    if (share := measured.get((name, grant.device))) is not None:
                        sums[grant.slot][0] += share * grant.amount
                        sums[grant.slot][1] += grant.amount
            if sums:
                found[kernel] = {slot: total / weight for slot, (total, weight) in sums.items() if weight}
        return found

    def _parts(self, grants: Sequence[Grant]) -> list[tuple[str, list[Grant]]]:
        return [(name, part) for name, part in self.allocator.by_plugin(grants).items() if name in self._plugins]
