"""Run containers for people, on machines they share. Plugin authors import three names from here."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from backendai.spec import Reject, hookimpl, hookspec

__version__ = "0.1.0"
__all__ = ["Reject", "__version__", "hookimpl", "hookspec"]


def __getattr__(name: str) -> object:
    """Load the plugin author's names on first use, so that the client and the CLI start without pluggy."""
    if name in ("Reject", "hookimpl", "hookspec"):
        from backendai import spec

        return getattr(spec, name)
    raise AttributeError(f"module 'backendai' has no attribute {name!r}")
