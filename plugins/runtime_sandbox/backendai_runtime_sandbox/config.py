"""What an operator may choose, and where the sandbox keeps things."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Config:
    """Options of the plugin.

    state_dir: its containers, logs and images; by default a folder of the user who runs it. images: more images, by name: a folder that
    holds a root filesystem, or a tarball of one. share: more folders of the node that every session of the image ``host`` may read.
    hide: folders that no session may see, even below a shared one. cgroup: folder in each cgroup hierarchy below which limits are set;
    by default our own. log_limit: bytes of a container's output that are kept until it is removed. pool: addresses for the networks of
    sessions with several kernels; they are seen nowhere else.
    """

    state_dir: str = ""
    images: Mapping[str, str] = field(default_factory=dict)
    share: tuple[str, ...] = ()
    hide: tuple[str, ...] = ()
    cgroup: str = ""
    log_limit: int = 1 << 30
    pool: str = "10.240.0.0/13"


@dataclass(frozen=True, slots=True)
class Folders:
    """Where things are. root: only its owner may list it; containers get at their own part by a mount."""

    root: Path

    @property
    def containers(self) -> Path:
        return self.root / "containers"

    @property
    def images(self) -> Path:
        return self.root / "images"

    @property
    def networks(self) -> Path:
        return self.root / "networks"

    @property
    def programs(self) -> Path:
        return self.root / "programs"

    def make(self) -> None:
        """Make them; the way down may be walked by others, but not listed, because ordinary users mount from there."""
        self.root.mkdir(parents=True, exist_ok=True)
        for folder, mode in ((self.root, 0o711), (self.containers, 0o711), (self.images, 0o711), (self.programs, 0o700),
                             (self.networks, 0o700)):
            folder.mkdir(exist_ok=True)
            folder.chmod(mode)


def folders(config: Config) -> Folders:
    """Return where this sandbox lives."""
    if config.state_dir:
        return Folders(Path(config.state_dir).absolute())
    if os.geteuid() == 0:
        return Folders(Path("/var/lib/backendai-sandbox"))
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Folders(Path(state) / "backendai-sandbox")
