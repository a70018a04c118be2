"""The manager: operations, state, and the loops that persist decisions and talk to agents."""
