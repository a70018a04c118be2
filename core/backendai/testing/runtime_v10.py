"""The laws of a runtime.

A runtime is tried with real containers: they bear a label of their own, and are removed with the law that made them. The image needs
``sh``, ``sleep``, ``cat``, ``touch`` and ``id``; ``python3`` or ``perl`` for the law about ports. What the runtime says it cannot do
(``Capabilities.missing``, or ``Failure('unsupported')``) is not tried; one whose containers run nothing says so under ``commands``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from backendai.spec.runtime_v10 import Runtime
from backendai.testing.containers import Bench, make_bench
from backendai.testing.runtime_inside import InsideLaws
from backendai.testing.runtime_life import LifeLaws
from backendai.testing.runtime_network import NetworkLaws


class RuntimeConformance(LifeLaws, InsideLaws, NetworkLaws):
    """What a runtime keeps to. image: what to run, empty for the runtime's own choice."""

    image: str = ""

    @asynccontextmanager
    async def lent(self, plugin: Runtime) -> AsyncIterator[Bench]:
        """Give a law the runtime with containers at hand."""
        async with make_bench(plugin, self.image, self.patience_s) as bench:
            yield bench
