"""What is installed. The only module that imports stevedore and importlib_metadata."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import importlib_metadata as metadata
from stevedore import ExtensionManager

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


class _Loader(ExtensionManager[Any]):
    """Load the entry points that it is given; by itself stevedore takes them from a cache on disk, which can be stale."""

    def __init__(self, group: str, given: list[Any]) -> None:
        self._given = given
        self.errors: dict[str, str] = {}
        super().__init__(group, on_load_failure_callback=self._failed)

    def list_entry_points(self) -> list[Any]:
        return self._given

    def _failed(self, _: Any, entry_point: Any, error: BaseException) -> None:
        self.errors[entry_point.name] = f"{type(error).__name__}: {error}"


def find(spec: Spec[Any], disabled: Collection[str] = ()) -> list[Candidate]:
    """Load every entry point of *spec*'s group; those named in *disabled* (ids) are listed and never imported."""
    return [_load(spec, name, offers, f"{spec.id}.{name}" in disabled) for name, offers in sorted(_offers(spec).items())]


def _load(spec: Spec[Any], name: str, offers: list[Any], off: bool) -> Candidate:
    """Load what one distribution offers under *name*; where two do, neither is loaded, for nobody can say which was meant."""
    dists = [offer.dist.name for offer in offers]
    if len(offers) > 1:
        why = f"it comes from {' and from '.join(dists)}; uninstall all but one of them"
        return Candidate(spec, name, ", ".join(dists), "", error=why, off=off)
    candidate = Candidate(spec, name, dists[0], offers[0].dist.version, off=off)
    if off:
        return candidate
    try:
        loader = _Loader(spec.group, offers)
    except (AssertionError, SystemExit) as error:  # these stevedore lets through
        return _broken(candidate, f"{type(error).__name__}: {error}")
    if name in loader.errors:
        return _broken(candidate, loader.errors[name])
    return Candidate(spec, name, candidate.dist, candidate.version, loader[name].plugin)


def _broken(candidate: Candidate, why: str) -> Candidate:
    return Candidate(candidate.spec, candidate.name, candidate.dist, candidate.version, error=why)


def _offers(spec: Spec[Any]) -> dict[str, list[Any]]:
    """Return the entry points of each name, one of each distribution: the first on the path hides a later one of the same name."""
    offers: dict[str, dict[str, Any]] = {}
    for dist in metadata.distributions():
        for entry_point in dist.entry_points.select(group=spec.group):
            owner = re.sub(r"[-_.]+", "-", dist.name).lower()  # one distribution may be spelled in several ways
            offers.setdefault(entry_point.name, {}).setdefault(owner, entry_point)
    return {name: list(by_owner.values()) for name, by_owner in offers.items()}
