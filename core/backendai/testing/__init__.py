"""The conformance kit: a test class for each contract, fakes, and the grades that a plugin earns."""
