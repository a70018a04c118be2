"""What is installed. The only module that imports stevedore and importlib_metadata."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import importlib_metadata as metadata
from stevedore import NamedExtensionManager

from backendai.plugin.errors import Duplicate
from backendai.spec import Spec


@dataclass(frozen=True, slots=True)
class Candidate:
    """An entry point: who ships it, and what it loads to, or why it does not load."""

    spec: Spec[Any]
    name: str
    dist: str
    version: str
    factory: Any = None
    error: str = ""
    off: bool = False

    @property
    def id(self) -> str:
        return f"{self.spec.id}.{self.name}"


def find(spec: Spec[Any], disabled: Collection[str] = ()) -> list[Candidate]:
    """Load every entry point of *spec*'s group; those named in *disabled* (ids) are listed and never imported."""
    owners = _owners(spec)
    wanted = sorted(name for name in owners if f"{spec.id}.{name}" not in disabled)
    errors: dict[str, str] = {}

    def failed(_: Any, entry_point: Any, error: BaseException) -> None:
        errors[entry_point.name] = f"{type(error).__name__}: {error}"

    loaded = NamedExtensionManager[Any](spec.group, wanted, on_load_failure_callback=failed,
                                         on_missing_entrypoints_callback=None)
    factories = {extension.name: extension.plugin for extension in loaded}
    return [
        Candidate(spec, name, dist.name, dist.version, factories.get(name), errors.get(name, ""), off=name not in wanted)
        for name, dist in sorted(owners.items())
    ]


def _owners(spec: Spec[Any]) -> dict[str, metadata.Distribution]:
    """Return who ships each name; stevedore keeps neither the owner nor every clash, and both are needed."""
    owners: dict[str, metadata.Distribution] = {}
    for dist in metadata.distributions():
        for entry_point in dist.entry_points.select(group=spec.group):
            other = owners.setdefault(entry_point.name, dist)
            if other.name != dist.name:
                raise Duplicate(f"{spec.id}.{entry_point.name} comes from both {other.name} and {dist.name}; uninstall one of them")
    return owners
