"""A moment as bytes, so that its decision can be made again: what it was put together from, not the arrays."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
import numpy as np

from backendai.model.group import GroupOptions
from backendai.sokovan.cluster import Cluster
from backendai.sokovan.snapshot import Agent, Booking, Lease, Quota, Request, Snapshot
from backendai.sokovan.trial import agents_of
from backendai.spec.scheduler_v10 import Account

LEVEL = 1  # measured on 5,000 agents: a third of the time that zlib's usual 6 takes, for as many bytes


@dataclass(frozen=True, slots=True)
class _Moment:
    """The parts of a snapshot, each in the order of its ids."""

    now: float
    slots: tuple[str, ...]
    agents: tuple[Agent, ...]
    leases: tuple[Lease, ...]
    requests: tuple[Request, ...]
    quotas: tuple[Quota, ...]
    bookings: tuple[Booking, ...]
    accounts: Mapping[str, Account]
    usage: Mapping[str, float]
    options: GroupOptions
    mix: tuple[tuple[int, ...], ...]
    weights: tuple[float, ...]


def pack(snapshot: Snapshot) -> bytes:
    """Write *snapshot* down, compressed. The same moment gives the same bytes."""
    view = snapshot.view
    moment = _Moment(
        view.now, view.slots, tuple(sorted(agents_of(snapshot), key=lambda agent: agent.id)),
        tuple(sorted(snapshot.leases.values(), key=lambda lease: lease.id)),
        tuple(sorted(snapshot.requests.values(), key=lambda request: request.id)),
        _quotas(snapshot), snapshot.bookings, view.accounts, view.usage, snapshot.options,
        () if snapshot.mix is None else tuple(map(tuple, snapshot.mix.tolist())),
        () if snapshot.weights is None else tuple(snapshot.weights.tolist()))
    return zlib.compress(_encode(moment), LEVEL)


def unpack(packed: bytes) -> Snapshot:
    """Return the snapshot that was packed; raise ``ValueError`` when these bytes are none of this version."""
    try:
        moment = msgspec.msgpack.decode(zlib.decompress(packed), type=_Moment)
    except (zlib.error, msgspec.DecodeError) as error:
        raise ValueError(f"this is no moment that can be read: {error}") from error
    cluster = Cluster(moment.slots)
    for agent in moment.agents:
        cluster.put_agent(agent)
    for lease in moment.leases:
        cluster.hold(lease, counted=True)
    for request in moment.requests:
        cluster.wait(request)
    cluster.set_quotas(moment.quotas)
    cluster.set_bookings(moment.bookings)
    cluster.set_accounts(moment.accounts, moment.usage)
    cluster.set_options(moment.options)
    if moment.mix:
        rows = [dict(zip(moment.slots, row, strict=True)) for row in moment.mix]
        cluster.set_mix(list(zip(rows, moment.weights, strict=True)))
    return cluster.freeze(moment.now)


class Digester:
    """Names moments by what they hold. It remembers what it has hashed, so that the next moment of a group costs only what is new.

    For one thread. Sessions are summed, so that their order and who came before do not matter; the rest is hashed as it stands.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[object, int]] = {}  # by id: what was hashed, and what came of it
        self._sum = 0
        self._agents: tuple[tuple[object, ...], bytes] = (), b""  # what does not change while no agent comes, goes or is changed

    def of(self, snapshot: Snapshot) -> str:
        """Return the digest of a moment, 64 hexadecimal digits. The same moment has the same one, also after ``pack`` and ``unpack``."""
        self._follow(snapshot.requests, snapshot.leases)
        view = snapshot.view
        whole = hashlib.sha256(self._sum.to_bytes(40, "big"))
        whole.update(_encode((view.now, view.slots, _quotas(snapshot), snapshot.bookings, view.accounts, view.usage, snapshot.options)))
        whole.update(self._fixed(snapshot))
        arrays = (snapshot.free, snapshot.kernels, snapshot.last_used, snapshot.mix, snapshot.weights)
        for array in (*arrays, *(table for _, table in sorted(snapshot.devices.items()))):
            if array is not None:
                whole.update(np.ascontiguousarray(array).tobytes())
        return whole.hexdigest()

    def _fixed(self, snapshot: Snapshot) -> bytes:
        parts = snapshot.names, snapshot.idle, snapshot.labels, snapshot.capacity
        if len(self._agents[0]) != len(parts) or any(one is not other for one, other in zip(self._agents[0], parts, strict=True)):
            hashed = hashlib.sha256(_encode(parts[:3]))
            hashed.update(np.ascontiguousarray(snapshot.capacity).tobytes())
            self._agents = parts, hashed.digest()
        return self._agents[1]

    def _follow(self, *sessions: Mapping[str, Request | Lease]) -> None:
        known, count = self._known, 0
        for one in sessions:
            count += len(one)
            for id, session in one.items():
                if (before := known.get(id)) is None or before[0] is not session:
                    number = int.from_bytes(hashlib.sha256(_encode(session)).digest(), "big")
                    self._sum += number - (before[1] if before else 0)
                    known[id] = (session, number)
        if len(known) > count:
            for id in [id for id in known if not any(id in one for one in sessions)]:
                self._sum -= known.pop(id)[1]


def _quotas(snapshot: Snapshot) -> tuple[Quota, ...]:
    return tuple(sorted(snapshot.quotas, key=lambda quota: (quota.scope, quota.scope_id, quota.what)))


def _encode(value: object) -> bytes:
    return msgspec.msgpack.encode(value, order="deterministic")
