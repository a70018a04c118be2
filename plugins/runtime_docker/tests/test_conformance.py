"""The runtime keeps to its contract on a real engine."""

from __future__ import annotations

import os
from typing import Any

import pytest
from backendai.testing.runtime_v10 import RuntimeConformance

pytestmark = pytest.mark.docker


class TestDocker(RuntimeConformance):
    plugin = "runtime_v10.docker"

    @pytest.fixture(autouse=True)
    def engine(self, docker_engine: Any, base_image: str) -> None:
        """Use the tests' own engine and image."""
        self.options = {"url": docker_engine.url, "network": f"bai-test-outward-{os.getpid()}"}
        self.image = base_image
