"""The sandbox keeps to its contract."""

from __future__ import annotations

from pathlib import Path

import pytest
from backendai.testing.runtime_v10 import RuntimeConformance

pytestmark = pytest.mark.system


class TestSandbox(RuntimeConformance):
    plugin = "runtime_v10.sandbox"

    @pytest.fixture(autouse=True)
    def place(self, root: Path, sandbox: object) -> None:
        """Keep its things in a folder of the test; ``sandbox`` skips where none can be."""
        self.options = {"state_dir": str(root)}
