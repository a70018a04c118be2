"""What is held right now, in memory: a mirror of the kernels' table that every commit of ours keeps true."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from backendai.manager.life import Held
from backendai.manager.store.placement import Change
from backendai.model.session import SessionState
from backendai.sokovan.snapshot import Lease


class Leases:
    """Sessions that hold capacity, by session and by kernel."""

    def __init__(self) -> None:
        self.by_session: dict[str, Lease] = {}
        self.by_kernel: dict[str, str] = {}  # to the session's id
        self.counts: Counter[str] = Counter()  # containers by agent

    def load(self, held: Iterable[Held]) -> None:
        """Begin anew with what the database says."""
        self.by_session, self.by_kernel, self.counts = {}, {}, Counter()
        for one in held:
            self._add(one)

    def note(self, changes: Iterable[Change]) -> None:
        """Follow what was committed."""
        for before, after in changes:
            if before.id in self.by_session and (not after.holds or before.started_at != after.started_at):
                del self.by_session[before.id], self.by_kernel[before.kernel]
                self.counts[str(before.kernel_agent)] -= 1
            if after.holds and after.id not in self.by_session:
                self._add(after)

    def _add(self, held: Held) -> None:
        limit = held.asked.time_limit_s
        ends_by = None if limit is None or held.started_at is None else held.started_at + limit
        self.by_session[held.id] = Lease(held.id, held.owner_id, "", "", held.priority, held.started_at or held.created_at, (held.amounts,),
                                         (str(held.kernel_agent),), ends_by)
        self.by_kernel[held.kernel] = held.id
        self.counts[str(held.kernel_agent)] += 1


def is_under_way(held: Held) -> bool:
    """Tell whether a session is still on its way to running, so that its progress is worth showing."""
    return held.state in (SessionState.SCHEDULED, SessionState.PREPARING, SessionState.STARTING)
