"""The Python SDK: ``Client`` for plain code, ``AsyncClient`` for asyncio. Both speak REST and know nothing of the server's insides."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from backendai.client.aio import AsyncClient, Process
    from backendai.client.calls import NewSession
    from backendai.client.sync import Client
    from backendai.model.errors import Failure

__all__ = ["AsyncClient", "Client", "Failure", "NewSession", "Process"]
_HOMES = {"AsyncClient": "aio", "Process": "aio", "Client": "sync", "NewSession": "calls"}


def __getattr__(name: str) -> object:
    """Load a name on first use, so that plain code never pays for asyncio."""
    import importlib

    if name == "Failure":
        return importlib.import_module("backendai.model.errors").Failure
    if name in _HOMES:
        return getattr(importlib.import_module(f"backendai.client.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'backendai.client' has no attribute {name!r}")
