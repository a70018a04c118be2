"""The node role: it makes one machine run what a manager wants there, and tells what it sees."""
