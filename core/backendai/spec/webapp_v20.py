"""An aiohttp application of its own, under one prefix of the manager's address."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from backendai.spec import Arity, Spec, hook

if TYPE_CHECKING:
    from aiohttp import web


class Platform(Protocol):
    """What a web application may ask of the platform, always on behalf of the user whose token it holds."""

    async def call(self, operation: str, arguments: Mapping[str, Any], token: str) -> Any:
        """Run a registered operation, such as ``sessions.list``, and return plain data. Raise ``backendai.model.errors.Failure``."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where the application lives. prefix: its path, such as ``/console``. url: the manager's own address."""

    prefix: str
    url: str
    platform: Platform


class Webapp:
    """One application. It is mounted under its entry point's name."""

    @hook(deadline_s=30.0)
    async def create_app(self, site: Site) -> web.Application:
        """Return the application; its start and clean-up signals are honoured. Its middlewares see its own prefix only."""
        raise NotImplementedError


SPEC = Spec("webapp", 20, Webapp, Arity.MANY)
