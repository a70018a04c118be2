"""Image references, as people write them."""

from __future__ import annotations

import re

from backendai.model.errors import Failure

_REFERENCE = re.compile(
    r"(?:[a-zA-Z0-9][a-zA-Z0-9.-]*(?::\d+)?/)?"  # registry
    r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*"  # path
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)


def check_image(text: str) -> str:
    """Return *text* if it is a well-formed image reference; raise ``Failure('bad-image')`` if not."""
    if len(text) > 512 or _REFERENCE.fullmatch(text) is None:
        raise Failure("bad-image", f"{text!r} is not an image reference; write NAME:TAG, or see `bai image ls`.")
    return text
