"""Who uses their sessions right now: soft state that the idle rules read and write down."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Activity:
    """When each session was last seen in use by somebody: a terminal, a command, a file transfer.

    clock: seconds since the epoch. A stream that is open counts as use, however silent.
    """

    def __init__(self) -> None:
        self._busy: Counter[str] = Counter()
        self._last: dict[str, float] = {}

    @contextmanager
    def using(self, session: str, clock: Callable[[], float]) -> Iterator[None]:
        """Count a session as used until the block ends."""
        self._busy[session] += 1
        try:
            yield
        finally:
            self._busy[session] -= 1
            if not self._busy[session]:
                del self._busy[session]
            self._last[session] = clock()

    def last(self, session: str, now: float) -> float | None:
        """Return when a session was last used, None when that was not since this process began; *now* while it is."""
        return now if self._busy[session] else self._last.get(session)

    def forget(self, session: str) -> None:
        """Forget what was written down."""
        self._last.pop(session, None)
