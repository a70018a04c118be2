"""What the roles say to each other: messages on the agent's link, frames on streams, tokens."""
