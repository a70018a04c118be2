"""How one agent is set up, and where it keeps things."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from backendai.plugin.host import Settings

MIB = 1024 * 1024
SANDBOX = "runtime_v10.sandbox"


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """Everything that an operator may choose.

    data: folder of the agent's own files. manager_url: such as ``https://cluster.example:8080``. token: made by the manager for agents.
    name: unique in the cluster. runtime: ``auto`` (docker when its engine answers, else sandbox) or a plugin's name.
    mount_roots: folders below which sessions may mount; none means no mounts. allow_caps: Linux capabilities that accelerator plugins
    may ask for. log_limit: bytes of output kept of one kernel. fsync: make every journal entry survive a power cut, at a price.
    resync_s, stats_s: seconds between full looks at the runtime, and between measurements. labels: what the operator says of this
    machine, such as ``zone``. address: by which the nodes of other agents reach this one; empty for the one that leads to the manager.
    """

    data: Path
    manager_url: str
    token: str = field(repr=False)
    name: str = field(default_factory=platform.node)
    runtime: str = "auto"
    plugins: Settings = field(default_factory=Settings)
    mount_roots: tuple[str, ...] = ()
    allow_caps: frozenset[str] = frozenset()
    log_limit: int = 256 * MIB
    fsync: bool = False
    resync_s: float = 10.0
    stats_s: float = 5.0
    labels: Mapping[str, str] = field(default_factory=dict)
    address: str = ""

    @property
    def kernels(self) -> Path:
        return self.data / "kernels"

    @property
    def logs(self) -> Path:
        return self.data / "logs"

    @property
    def scratch(self) -> Path:
        return self.data / "scratch"

    def settings(self) -> Settings:
        """Return the plugins' settings; the sandbox keeps its things here, and shows ours to no session."""
        given = self.plugins.options.get(SANDBOX, {})
        own = {"state_dir": str(self.data / "sandbox"), **given, "hide": [*given.get("hide", ()), str(self.data)]}
        return replace(self.plugins, options={**self.plugins.options, SANDBOX: own})

    def make_folders(self) -> None:
        """Make the folders; only the way to the scratch may be walked by others, because containers mount from there."""
        self.data.mkdir(parents=True, exist_ok=True)
        for folder, mode in ((self.data, 0o711), (self.kernels, 0o700), (self.logs, 0o700), (self.scratch, 0o711)):
            folder.mkdir(exist_ok=True)
            folder.chmod(mode)
