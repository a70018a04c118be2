from backendai.testing.agentselector_v10 import AgentSelectorConformance


class TestConcentrated(AgentSelectorConformance):
    plugin = "agentselector_v10.concentrated"


class TestDispersed(AgentSelectorConformance):
    plugin = "agentselector_v10.dispersed"


class TestFragmentation(AgentSelectorConformance):
    plugin = "agentselector_v10.fragmentation"


class TestFragmentationOfFewKinds(AgentSelectorConformance):
    plugin = "agentselector_v10.fragmentation"
    options = {"typical": 2}  # noqa: RUF012 - as an author writes it


class TestRoundRobin(AgentSelectorConformance):
    plugin = "agentselector_v10.roundrobin"
