"""Who is told when something changes inside this process. Nothing here lasts; the store is the truth."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from backendai.model.errors import Failure

if TYPE_CHECKING:
    from backendai.manager.held import Held

T = TypeVar("T")
BACKLOG = 1000  # events that a slow reader may lag behind before it is cut off


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the event log. owner_id: who may see it, None for administrators. subject: id of what it is about."""

    id: int
    at: float
    type: str
    subject: str
    owner_id: str | None
    data: Mapping[str, Any]


@dataclass(slots=True)
class News:
    """What the orchestrator is to look at, ids most of them. fresh: sessions that have entered the queue. due: whose wishes changed.

    entered: sessions that have just been written, as they wait, each with how many others it waits for: they need not be read.
    agents: that came, went or changed. groups: where somebody may find room now. everything: whatever there is, settings included.
    """

    fresh: set[str] = field(default_factory=set)
    entered: list[tuple[Held, int]] = field(default_factory=list)
    due: set[str] = field(default_factory=set)
    agents: set[str] = field(default_factory=set)
    groups: set[str] = field(default_factory=set)
    everything: bool = False


class Subscription:
    """A reader of the event stream. ``cut`` becomes true when it was too slow; it then resumes from the store."""

    def __init__(self) -> None:
        self.cut = False
        self._queue: asyncio.Queue[Event | None] = asyncio.Queue()

    def offer(self, event: Event) -> None:
        """Take *event*, or end when the reader lags too far behind."""
        if self.cut:
            return
        if self._queue.qsize() >= BACKLOG:
            self.cut = True
            self._queue.put_nowait(None)
        else:
            self._queue.put_nowait(event)

    def end(self) -> None:
        """Let the reader finish what it has and stop."""
        self._queue.put_nowait(None)

    async def next(self) -> Event | None:
        """Wait for the next event; None at the end."""
        return await self._queue.get()


class Bus:
    """The process's switchboard: a bell for the orchestrator, one for each session, and the event broadcast."""

    def __init__(self) -> None:
        self._bell = asyncio.Event()
        self._news = News()
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._subscriptions: set[Subscription] = set()
        self._ended = False

    def wake(self, *, fresh: Iterable[str] = (), due: Iterable[str] = (), agents: Iterable[str] = (), groups: Iterable[str] = (),
             entered: Sequence[tuple[Held, int]] = (), everything: bool | None = None) -> None:
        """Ring for the orchestrator: something that it decides upon has changed. Who does not say what means everything."""
        news = self._news
        for known, more in ((news.fresh, fresh), (news.due, due), (news.agents, agents), (news.groups, groups)):
            known.update(more)
        news.entered += entered
        if everything or (everything is None and not any((fresh, due, agents, groups, entered))):
            news.everything = True
        self._bell.set()

    async def wait_for_wake(self) -> None:
        """Wait for the bell; rings that came meanwhile count once."""
        await self._bell.wait()
        self._bell.clear()

    def take_news(self) -> News:
        """Return what was rung for since the last time."""
        news, self._news = self._news, News()
        return news

    def changed(self, session_id: str) -> None:
        """Tell everyone who waits for *session_id* to look again."""
        for waiter in self._waiting.get(session_id, ()):
            waiter.set()

    async def until(self, session_id: str, look: Callable[[], Awaitable[T | None]]) -> T:
        """Return the first answer of *look* that is not None. It is asked at once and after each change of the session.

        Bound the wait with ``asyncio.timeout``.
        """
        waiter = asyncio.Event()
        self._waiting[session_id].add(waiter)
        try:
            while (answer := await look()) is None:
                if self._ended:
                    raise Failure("unavailable", "The manager is stopping; ask again in a moment.")
                await waiter.wait()
                waiter.clear()
            return answer
        finally:
            waiters = self._waiting[session_id]
            waiters.discard(waiter)
            if not waiters:
                del self._waiting[session_id]

    def publish(self, events: Sequence[Event]) -> None:
        """Hand committed *events* to every subscriber."""
        for subscription in self._subscriptions:
            for event in events:
                subscription.offer(event)

    @contextmanager
    def subscribe(self) -> Iterator[Subscription]:
        """Hear every event that is committed from now on."""
        subscription = Subscription()
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)

    def end(self) -> None:
        """End every subscription and every wait; the process is stopping."""
        self._ended = True
        for session_id in list(self._waiting):
            self.changed(session_id)
        for subscription in self._subscriptions:
            subscription.end()
