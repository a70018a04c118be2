"""Made-up queues, and conversations about them: what the laws of a scheduler are tried on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from random import Random

from backendai.spec.scheduler_v10 import Account, Attempt, Holding, Node, Outcome, QueueView, Reserve, Scheduler, Waiting
from backendai.testing.laws import Violation
from backendai.testing.toy_group import Job

SLOTS = ("cpu", "mem", "cuda.device")
NOW = 1_800_000_000.0
Answer = Callable[[object, int], Outcome]  # what becomes of a wish: the wish, and how many attempts there were before it


class Case:
    """A view, and an outcome for each attempt. Room is always kept for whoever may have it."""

    def __init__(self, view: QueueView, outcomes: Sequence[Outcome]) -> None:
        self.view = view
        self._outcomes = outcomes

    def __repr__(self) -> str:
        return f"the outcomes {', '.join(one.value for one in self._outcomes) or 'none'} and {self.view!r}"

    def fate(self, wish: object, number: int) -> Outcome:
        if isinstance(wish, Reserve):
            return Outcome.RESERVED
        return self._outcomes[number % len(self._outcomes)] if self._outcomes else Outcome.PLACED


def make_case(random: Random) -> Case:
    """Make a small queue, in which each session is placed or blocked."""
    view = make_view(random, random.randint(1, 6), random.randint(1, 4))
    return Case(view, [random.choice((Outcome.PLACED, Outcome.BLOCKED)) for _ in view.waiting])


def make_view(random: Random, waiting: int, agents: int = 3) -> QueueView:
    """Make a queue in the order of submission, with ties in priority and in time."""
    times = sorted(NOW - random.randint(0, 20) for _ in range(waiting))
    nodes = tuple(_node(random, f"agent{number}") for number in range(agents))
    holding = tuple(_holding(random, f"held{number}", nodes) for number in range(random.randint(0, 3)))
    usage = {f"user{number}": float(random.randint(0, 9)) for number in range(3)}
    accounts = {key: Account(float(random.randint(1, 3)), float(random.randint(0, 9))) for key in ACCOUNTS}
    return QueueView(NOW, SLOTS, tuple(_waiting(random, f"s{number}", at) for number, at in enumerate(times)), holding, nodes, usage,
                     tuple(map(sum, zip(*(node.capacity for node in nodes), strict=True))), accounts)


def make_accounts(random: Random) -> dict[str, Account]:
    """Make accounts that no platform should have: weights and uses that are nothing, negative, endless or no number."""
    odd = (0.0, -1.0, 1e308, float("inf"), float("-inf"), float("nan"))
    return {key: Account(random.choice(odd), random.choice(odd)) for key in random.sample(ACCOUNTS, random.randint(1, len(ACCOUNTS)))}


def make_queue(random: Random) -> tuple[list[int], list[Job]]:
    """Make agents of a toy group, and sessions of few sizes, limits and users that ask at once or soon."""
    sizes = [random.choice((2000, 4000)) for _ in range(random.randint(1, 2))]
    jobs = [Job(f"job{number:02}", random.choice((0, 0, 1, 2)), random.choice((1000, 2000, max(sizes))), random.choice((2, 5, 9)),
                f"user{random.randint(0, 1)}", random.randint(1, 2)) for number in range(random.randint(2, 10))]
    return sizes, jobs


def make_full(random: Random) -> tuple[list[int], list[Job]]:
    """Make a toy group's agents, and more sessions than go on them; who is less urgent and as large as an agent comes later."""
    sizes = [4000] * random.randint(1, 3)
    first = [Job(f"a{number}", 0, random.choice((1000, 2000, 3000)), random.randint(2, 9), "user0", 30) for number in range(2 * len(sizes))]
    head = Job("b", 0, random.choice((3000, 4000)), 5, "user1", 20)
    later = [Job(f"c{number}", random.randint(0, 3), random.choice((1000, 2000)), random.randint(1, 12), "user2") for number in range(8)]
    return sizes, [*first, head, *later]


def make_rush(random: Random) -> tuple[list[int], list[Job]]:
    """Make a toy group's agents, one session as large as an agent, and more small ones in each second than there is room for."""
    sizes = [4000] * random.randint(1, 2)
    small = [Job(f"small{at:02}.{number}", at, random.choice((1000, 2000)), random.randint(2, 6), f"user{random.randint(1, 2)}")
             for at in range(RUSH) for number in range(2 * len(sizes))]
    return sizes, [Job("large", 2, 4000, 3, "user0"), *small]


RUSH = 40  # seconds
ACCOUNTS = ("", "project0", "project1", "project0/user0", "project0/user1", "project1/user0")


def _node(random: Random, id: str) -> Node:
    capacity = tuple(random.randint(0, 8) * 1000 for _ in SLOTS)
    return Node(id, capacity, tuple(amount - random.randint(0, amount // 1000) * 1000 for amount in capacity))


def _waiting(random: Random, id: str, at: float) -> Waiting:
    kernels = tuple(tuple(random.randint(0, 4) * 1000 for _ in SLOTS) for _ in range(random.randint(1, 2)))
    return Waiting(id, f"user{random.randint(0, 2)}", f"project{random.randint(0, 1)}", random.randint(0, 3), at, kernels,
                   random.choice((None, 60.0, 3600.0)))


def _holding(random: Random, id: str, nodes: Sequence[Node]) -> Holding:
    return Holding(id, f"user{random.randint(0, 2)}", "project0", 0, NOW - random.randint(1, 100), ((1000,) * len(SLOTS),),
                   (random.choice(nodes).id,), random.choice((None, NOW + 60)))


def always(outcome: Outcome, kept: Outcome = Outcome.RESERVED) -> Answer:
    """Answer every attempt alike, and every reservation."""
    return lambda wish, number: kept if isinstance(wish, Reserve) else outcome


def talk(scheduler: Scheduler, view: QueueView, fate: Answer) -> list[object]:
    """Hold a conversation and return what was yielded; whoever goes on for ever is stopped after a while."""
    conversation = scheduler.attempts(view)
    said: list[object] = []
    tries = 0
    try:
        wish: object = next(conversation)
        while len(said) < 3 * len(view.waiting) + 8:
            said.append(wish)
            answer = fate(wish, tries)
            tries += not isinstance(wish, Reserve)
            wish = conversation.send(answer)
    except StopIteration:
        return said
    except Exception as error:
        raise Violation(f"it raised {type(error).__name__}: {error}") from error
    conversation.close()
    return said


def names(said: Sequence[object]) -> list[str]:
    """Return whom it tried, in order."""
    return [wish.session for wish in said if isinstance(wish, Attempt)]


def told(said: Sequence[object]) -> str:
    """Return a conversation in a few words."""
    return listed(wish.session if isinstance(wish, Attempt) else repr(wish) for wish in said)


def listed(several: Iterable[str]) -> str:
    """Return names as a list for a sentence."""
    return ", ".join(several) or "nobody"
