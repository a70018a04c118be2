"""What a resource group looks like right now: the frozen moment and the plugins that decide there, for whoever explains it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from backendai.model.errors import Failure
from backendai.plugin.errors import Missing
from backendai.plugin.host import PluginHost
from backendai.sokovan.snapshot import Snapshot
from backendai.spec import agentselector_v10, scheduler_v10
from backendai.spec.agentselector_v10 import AgentSelector
from backendai.spec.scheduler_v10 import Scheduler


@dataclass(frozen=True, slots=True)
class Sight:
    """A resource group at one moment. group: its id. plugins: the scheduler and the selector, each as ``label_of`` writes it."""

    group: str
    snapshot: Snapshot
    scheduler: Scheduler
    selector: AgentSelector
    plugins: tuple[str, str]


class Sights:
    """Where sights come from. The planner sets *source*: it freezes a group now, on the loop; None for a group that it does not know."""

    def __init__(self) -> None:
        self.source: Callable[[str], Sight | None] = lambda group: None

    def of(self, group: str) -> Sight:
        """Return a group as it is now; raise ``Failure('unavailable')`` while nobody plans for it, or nobody can."""
        try:
            sight = self.source(group)
        except Missing as error:
            raise Failure("unavailable", f"{error}; ask your administrator to look at `bai plugin ls`.") from error
        if sight is None:
            raise Failure("unavailable", "Nothing has been planned in this resource group yet; ask again in a moment.")
        return sight


def labels_of(host: PluginHost, scheduler: str, selector: str) -> tuple[str, str]:
    """Return how two plugins are named in the record of decisions: name, package and version."""
    return label_of(host, f"{scheduler_v10.SPEC.id}.{scheduler}"), label_of(host, f"{agentselector_v10.SPEC.id}.{selector}")


def label_of(host: PluginHost, id: str) -> str:
    """Return a plugin's name, package and version: ``fifo (backendai-scheduler 0.1.0)``; the bare name of one that is not there."""
    name = id.partition(".")[2]
    return next((f"{name} ({row.dist} {row.version})" for row in host.rows if row.id == id), name)
