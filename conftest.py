"""What all tests share, in core, plugins and here."""

from __future__ import annotations

import hypothesis.internal.observability  # noqa: F401 - else its plugin does so at the end, where Python 3.11 can fail to parse it

pytest_plugins = ["tests.parts.fixtures"]
