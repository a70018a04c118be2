"""What agents are told to have: one numbered stream of ``Desired`` for each link, the whole first and then what changes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from backendai.manager import networks
from backendai.manager.context import Context
from backendai.manager.held import Held, Kernel, part_of
from backendai.manager.life import BOOTSTRAP_S
from backendai.manager.store.held import Change, find_holding, left
from backendai.manager.store.schema import kernels
from backendai.model.network import NetPlan
from backendai.model.session import DEADLINES, SessionState, SessionType
from backendai.wire.link import Beat, Desired, FromManager, KernelOrder, KernelState, Peer, Want, Welcome

MARGIN_S = 10.0  # the agent gives up this much earlier than we do, so that its reason is heard


class Link(Protocol):
    """What we need of a connection to an agent. token: the id of its token. Neither method waits."""

    agent_id: str
    token: str

    def send(self, message: FromManager) -> None:
        """Queue *message*; a reader that is too slow loses the link."""

    def close(self, reason: str) -> None:
        """End the connection."""


@dataclass(slots=True)
class Channel:
    """A link as the orchestrator sees it.

    whole: the agent was told everything that it should have; until then changes only make it *stale*. beat: its last one.
    noted: when its last sign of life was written down.
    """

    link: Link
    generation: int = 0
    whole: bool = False
    stale: bool = False
    beat: Beat | None = None
    noted: float = 0.0

    def desire(self, put: Sequence[KernelOrder] = (), drop: Sequence[str] = (), *, full: bool = False) -> None:
        """Send the next number."""
        self.generation += 1
        self.link.send(Desired(self.generation, full, tuple(put), tuple(drop)))


class Dispatch:
    """The channels of all connected agents."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.channels: dict[str, Channel] = {}

    def tell(self, changes: Iterable[Change], unwanted: Iterable[tuple[str, str]] = (), hurried: Iterable[Held] = ()) -> None:
        """Send what committed *changes* mean to agents, one message each.

        unwanted: (agent, kernel) pairs that are not desired. hurried: sessions whose end is ordered once more.
        """
        put: dict[str, list[KernelOrder]] = {}
        drop: dict[str, list[str]] = {}
        for agent_id, kernel in unwanted:
            drop.setdefault(agent_id, []).append(kernel)
        for before, after in changes:
            for gone in left(before, after):
                drop.setdefault(str(gone.agent), []).append(gone.id)
            for agent_id, told in orders(after, news(before, after)):
                put.setdefault(agent_id, []).append(told)
        for held in hurried:
            for agent_id, told in orders(held, held.holding):
                put.setdefault(agent_id, []).append(told)
        for agent_id in put.keys() | drop.keys():
            if (channel := self.channels.get(agent_id)) is None:
                continue  # it will be told everything when it connects
            if channel.whole:
                channel.desire(put.get(agent_id, ()), drop.get(agent_id, ()))
            else:
                channel.stale = True

    async def tell_all(self, channel: Channel, welcome: Welcome | None = None) -> None:
        """Send the whole desired set as it is now, after *welcome* when the conversation begins."""
        channel.whole, channel.stale = False, True
        try:
            while channel.stale:
                channel.stale = False
                orders = await self.desired_of(channel.link.agent_id)
        except BaseException:
            channel.link.close("the manager cannot say what it wants; connect anew")
            raise
        if self.channels.get(channel.link.agent_id) is channel:  # else it has gone, or connected once more
            channel.whole = True
            if welcome is not None:
                channel.link.send(welcome)
            channel.desire(orders, full=True)

    async def desired_of(self, agent_id: str) -> list[KernelOrder]:
        """Return everything that an agent should have."""
        held = await self._context.store.read(lambda connection: find_holding(connection, kernels.c.agent_id == agent_id))
        return [told for one in held for _, told in orders(one, (kernel for kernel in one.holding if kernel.agent == agent_id))]


def news(before: Held, after: Held) -> Iterator[Kernel]:
    """Yield the kernels of which their agents must hear: new ones, and those that are to end, or sooner than before."""
    known = {kernel.id: kernel for kernel in before.holding}
    for kernel in after.holding:
        was = known.get(kernel.id)
        want = wanted(after, kernel)
        if was is None or (want is Want.STOP and (wanted(before, was) is not want or before.grace_s != after.grace_s)):
            yield kernel


def wanted(held: Held, kernel: Kernel) -> Want | None:
    """Return what is wanted of a kernel, None for nothing; what has exited is left alone."""
    if not kernel.holds:
        return None
    ending = held.state == SessionState.TERMINATING and kernel.state != KernelState.EXITED
    return Want.STOP if ending or held.recalled else Want.RUN


def orders(held: Held, some: Iterable[Kernel]) -> Iterator[tuple[str, KernelOrder]]:
    """Yield for *some* of a session's kernels the agent and what it is told; what they have in common is made once."""
    plan = networks.from_text(held.net) if held.net else None
    peers = networks.with_addresses(peers_of(held), plan) if len(held.kernels) > 1 else ()
    for kernel in some:
        yield str(kernel.agent), order(held, kernel, peers, plan)


def order(held: Held, kernel: Kernel, peers: tuple[Peer, ...], plan: NetPlan | None) -> KernelOrder:
    """Return what the agent is told of a session's kernel."""
    spec, part = held.asked, part_of(held.asked, kernel.role)
    return KernelOrder(
        kernel=kernel.id, session=held.id, name=held.name, owner=held.owner_id, want=wanted(held, kernel) or Want.STOP,
        image=part.image or spec.image, command=spec.command if part.command is None else part.command,
        idle=held.type == SessionType.INTERACTIVE and not part.command, env={**spec.env, **variables(held)}, slots=kernel.amounts,
        user=(held.uid, held.gid), hostname=kernel.name, workdir=spec.workdir, network=spec.network, mounts=spec.mounts,
        time_limit_s=spec.time_limit_s, grace_s=held.grace, prepare_s=DEADLINES[SessionState.PREPARING] - MARGIN_S,
        start_s=DEADLINES[SessionState.STARTING] - MARGIN_S, role=kernel.role, idx=kernel.idx, peers=peers, net=plan,
        bootstrap=spec.bootstrap, bootstrap_s=BOOTSTRAP_S, units=kernel.devices, attempt=held.attempt)


def peers_of(held: Held) -> tuple[Peer, ...]:
    """Return a session's kernels as they see each other, in order."""
    return tuple(Peer(kernel.name, kernel.id, str(kernel.agent), kernel.role, kernel.idx) for kernel in held.kernels)


def variables(held: Held) -> Mapping[str, str]:
    """Return what a command can know of its session beyond its cluster."""
    array = held.asked.array
    known = {} if array is None else {"BACKENDAI_ARRAY_ID": array.id, "BACKENDAI_ARRAY_INDEX": str(array.index),
                                      "BACKENDAI_ARRAY_SIZE": str(array.size)}
    return known if held.attempt == 1 else known | {"BACKENDAI_ATTEMPT": str(held.attempt)}
