"""How one manager is set up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from backendai.model.slots import SCALE
from backendai.plugin.host import Settings

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class ManagerConfig:
    """Everything that an operator may choose.

    data: folder of the manager's own files. db_url: where the state is; empty for SQLite in *data*. port: 0 for any free one.
    scheduler, selector, network: names of plugins. lost_after_s: how long an agent may be away before its sessions fail.
    default_slots: what a session gets that asks for nothing, in internal units. drain_s: how long a stop waits for requests
    in flight. events_kept, events_kept_s: what the event log remembers at most.
    """

    data: Path
    db_url: str = ""
    host: str = "127.0.0.1"
    port: int = 0
    plugins: Settings = field(default_factory=Settings)
    scheduler: str = "backfill"
    selector: str = "concentrated"
    network: str = "vxlan"
    lost_after_s: float = 180.0
    default_slots: Mapping[str, int] = field(default_factory=lambda: {"cpu": SCALE, "mem": 512 * MIB})
    drain_s: float = 10.0
    events_kept: int = 100_000
    events_kept_s: float = 7 * 86400.0

    @property
    def store_url(self) -> str:
        """Return *db_url*, or the embedded database's."""
        return self.db_url or f"sqlite:///{self.data / 'backendai.db'}"
