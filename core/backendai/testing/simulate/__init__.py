"""The production scheduler on a trace: readers of traces, events on virtual time, and what came of them."""
