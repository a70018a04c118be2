"""Networks of sessions across nodes, as VXLANs."""
