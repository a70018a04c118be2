"""What all tests share, in core, plugins and here."""

from __future__ import annotations

pytest_plugins = ["tests.parts.fixtures"]
