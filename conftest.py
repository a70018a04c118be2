"""What all tests share, in core, plugins and here."""

from __future__ import annotations

import hypothesis.internal.observability  # else its plugin does so at the end, where Python 3.11 can fail to parse it

hypothesis.settings.register_profile("unhurried", deadline=None)  # a busy machine is no defect of what is tested
hypothesis.settings.load_profile("unhurried")

pytest_plugins = ["tests.parts.fixtures"]
