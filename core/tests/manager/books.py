"""What must be true of the database after every commit, whoever made it: looked at on its own connection, with plain SQL."""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import msgspec

OVER = ("exited", "gone", "lost")
FINAL = ("TERMINATED", "CANCELLED", "FAILED")
_KERNELS = "SELECT session_id, agent_id, slots, holds, state, attempt FROM kernels"
_SESSIONS = ("SELECT id, state, type, spec, attempt, retried, array_id, result, not_before, owner_id, project_id, domain_id, group_id, "
             "stop, evict, claim, name FROM sessions")


@dataclass
class Books:
    """Holds the tables to their laws.

    clock: the manager's. latest: the latest time that it ever was. ends: state and result of sessions that have ended, removed ones
    too. looks: how often it looked. seen: sessions that came to something out of the ordinary, by what.
    """

    clock: Callable[[], float]
    latest: float = 0.0
    ends: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    looks: int = 0
    seen: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    _held: set[tuple[str, int]] = field(default_factory=set)

    def look(self, connection: sqlite3.Connection) -> None:
        """Raise ``AssertionError`` when something is not as it should be."""
        self.looks += 1
        self.latest = max(self.latest, self.clock())
        names = _SESSIONS.removeprefix("SELECT ").partition(" FROM")[0].split(", ")
        sessions = {row[0]: dict(zip(names, row, strict=True)) for row in connection.execute(_SESSIONS)}
        kernels = defaultdict(list)
        for row in connection.execute(_KERNELS):
            kernels[row[0]].append(row)
        self._ledger(connection, [row for rows in kernels.values() for row in rows if row[3]])
        holding = {id for id, rows in kernels.items() if any(row[3] for row in rows)}
        self._quotas(connection, sessions, kernels, holding)
        for id, session in sessions.items():
            if session["state"] in FINAL:
                assert self.ends.setdefault(id, (session["state"], session["result"])) == (session["state"], session["result"]), \
                    f"{id} has ended twice"
                assert not session["claim"], f"room is kept for {id}, which has ended"
            _whole(session, kernels[id])
            self._see(session, kernels[id])
            assert session["retried"] <= spec_of(session["spec"])["retry"]["count"], f"{id} was tried too often"
        self._arrays(sessions, holding)
        self._begins(connection, sessions, holding)

    def _see(self, session: dict[str, Any], rows: list[Any]) -> None:
        for what, it_is in (("room was kept for", session["claim"]), ("made room", session["evict"]), ("tried again", session["retried"]),
                            ("clusters placed", len(rows) > 1 and rows[0][3]),
                            ("on several agents", len({row[1] for row in rows if row[3]}) > 1)):
            if it_is:
                self.seen[what].add(session["id"])

    def _ledger(self, connection: sqlite3.Connection, rows: list[Any]) -> None:
        sums: Counter[tuple[str, str]] = Counter()
        for row in rows:
            sums.update({(row[1], slot): amount for slot, amount in amounts_of(row[2])})
        for agent, slot, used, capacity in connection.execute("SELECT agent_id, slot, used, capacity FROM agent_slots"):
            assert used == sums.pop((agent, slot), 0), f"the ledger says {used} of {agent}.{slot}"
            assert used <= capacity, f"more is used of {agent}.{slot} than there is"
        assert not +sums, f"held, and in no ledger: {+sums}"

    def _quotas(self, connection: sqlite3.Connection, sessions: dict[str, Any], kernels: Any, holding: set[str]) -> None:
        lines = connection.execute('SELECT scope_id, group_id, what, "limit", used FROM quotas').fetchall()
        sums: Counter[tuple[str, str, str]] = Counter()
        for id in holding if lines else ():
            session = sessions[id]
            amounts = Counter({"sessions": 1})
            for row in kernels[id]:
                if row[3]:
                    amounts.update(dict(amounts_of(row[2])))
            for scope in (session["owner_id"], session["project_id"], session["domain_id"]):
                for what, amount in amounts.items():
                    sums[scope, session["group_id"], what] += amount
                    sums[scope, "", what] += amount
        for scope, group, what, limit, used in lines:
            if what not in ("waiting", "kernels", "lifetime"):
                assert used == sums[scope, group, what], f"the quota of {what} says {used}, held are {sums[scope, group, what]}"
                assert used <= limit, f"the quota of {what} is exceeded"

    def _arrays(self, sessions: dict[str, Any], holding: set[str]) -> None:
        counts = Counter(sessions[id]["array_id"] for id in holding if sessions[id]["array_id"])
        for id in holding:
            array = spec_of(sessions[id]["spec"])["array"]
            if array is not None and array["most"] is not None:
                assert counts[array["id"]] <= array["most"], f"{counts[array['id']]} of the array {array['id']} run"

    def _begins(self, connection: sqlite3.Connection, sessions: dict[str, Any], holding: set[str]) -> None:
        """Look at those who have come to hold something: nobody does before his time."""
        fresh = {(id, sessions[id]["attempt"]) for id in holding} - self._held
        self._held |= fresh
        for id, _ in fresh:
            begin = sessions[id]["not_before"]
            assert begin is None or begin <= self.latest, f"{id} was placed {begin - self.latest:g} s before its time"
            for on, kind in connection.execute("SELECT on_id, kind FROM dependencies WHERE session_id = ?", (id,)):
                assert on in self.ends, f"{id} was placed before {on} had ended"
                good = self.ends[on][1] == "success"
                assert kind == "afterany" or good is (kind == "afterok"), f"{id} was placed, although {on} ended with {self.ends[on]}"


def _whole(session: dict[str, Any], rows: list[Any]) -> None:
    """See that a session holds all or nothing, but for kernels that have ended before the others."""
    id, state = session["id"], session["state"]
    assert not any(row[3] for row in rows if row[5] != session["attempt"]), f"{id}: an attempt that has ended holds something"
    mine = [row for row in rows if row[5] == session["attempt"]]
    wanted = sum(part["count"] for part in spec_of(session["spec"])["cluster"]) or 1
    assert len(mine) == wanted, f"{id} has {len(mine)} kernels, and should have {wanted}"
    if state == "PENDING" or state in FINAL:
        assert not any(row[3] for row in mine), f"{id} is {state} and holds something"
    elif state == "TERMINATING":
        assert any(row[3] for row in mine), f"{id} is {state} and holds nothing"
    else:
        assert all(row[3] or row[4] in OVER for row in mine), f"{id} is {state} and not whole"
        assert any(row[3] for row in mine), f"{id} is {state} and holds nothing"


@lru_cache(1000)
def spec_of(text: str) -> dict[str, Any]:
    """Return what was asked for."""
    found: dict[str, Any] = msgspec.json.decode(text)
    return found


@lru_cache(1000)
def amounts_of(text: str) -> tuple[tuple[str, int], ...]:
    """Return amounts by slot."""
    return tuple(msgspec.json.decode(text).items())
