"""The network keeps to its contract; its ends are made where we are root."""

from __future__ import annotations

import pytest
from backendai.testing.network_v10 import NetworkConformance

pytestmark = pytest.mark.system


class TestVxlan(NetworkConformance):
    plugin = "network_v10.vxlan"
