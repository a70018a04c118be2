from backendai.testing.agentselector_v10 import AgentSelectorConformance


class TestConcentrated(AgentSelectorConformance):
    plugin = "agentselector_v10.concentrated"


class TestDispersed(AgentSelectorConformance):
    plugin = "agentselector_v10.dispersed"
