"""What is noted of each plan, in the thread that made it: the name of its moment, and the moment itself as far as that is cheap."""

from __future__ import annotations

import time
from dataclasses import dataclass

from backendai.sokovan.plan import Plan
from backendai.sokovan.record import Digester, pack
from backendai.sokovan.snapshot import Snapshot

SHARE = 20.0  # packing takes at most one part in so many of the time


@dataclass(frozen=True, slots=True)
class Note:
    """What a plan was made from. snapshot: its digest. frozen: packed, None where that would have cost too much."""

    snapshot: str
    frozen: bytes | None


class Recorder:
    """Notes the plans of one resource group."""

    def __init__(self) -> None:
        self._digester = Digester()
        self._next = 0.0  # when a moment may be packed again

    def note(self, snapshot: Snapshot, plan: Plan) -> Note | None:
        """Return what is to be recorded of *plan*; None when it places nobody and has nobody make room."""
        if not plan.placements and not plan.evictions:
            return None
        began = time.monotonic()
        frozen = pack(snapshot) if began >= self._next else None
        if frozen is not None:
            done = time.monotonic()
            self._next = done + (done - began) * SHARE
        return Note(self._digester.of(snapshot), frozen)
