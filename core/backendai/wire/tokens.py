"""Bearer tokens: made once, shown once, stored as a hash."""

from __future__ import annotations

import hashlib
import secrets

USER_PREFIX = "bai_"
AGENT_PREFIX = "baa_"


def make_token(prefix: str) -> str:
    """Return a new token with 256 bits of randomness."""
    return prefix + secrets.token_urlsafe(32)


def hash_token(token: str) -> str:
    """Return what is stored of *token*. Plain SHA-256 is enough for a secret that nobody could guess."""
    return hashlib.sha256(token.encode()).hexdigest()
