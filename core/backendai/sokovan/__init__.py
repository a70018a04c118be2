"""The orchestrator's brain: a frozen snapshot in, decisions out. No input or output, no clock, no randomness."""
