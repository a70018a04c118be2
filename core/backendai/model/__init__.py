"""Pure values: slots, sessions, images, ids, units, errors. No I/O, no clock, nothing of ours below."""
