"""Dominant resource fairness: the example of the paper, and the properties that it proves, on small groups."""

from __future__ import annotations

import sys
from pathlib import Path

from backendai.spec.scheduler_v10 import Amounts, Outcome, Waiting
from backendai_scheduler.drf import Drf
from backendai_scheduler.shares import dominant
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))  # for played: pytest's importlib mode adds nothing itself
from played import NOW, Pool, always, holding, only, tell, tried, view, waiting

PLACED, BLOCKED = Outcome.PLACED, Outcome.BLOCKED


def jobs(user: str, count: int, need: Amounts, **more: object) -> list[Waiting]:
    """Return a user's sessions, all alike."""
    return [waiting(f"{user}{n}", user, need, **more) for n in range(count)]


def test_the_example_of_the_paper() -> None:
    """9 processors, 18 GB; A asks for (1, 4) each time, B for (3, 1): A gets three, B two, and each has two thirds of something."""
    seen = view([*jobs("A", 9, (1000, 4000)), *jobs("B", 9, (3000, 1000))], (9000, 18000))
    pool = Pool(seen)
    tell(Drf(), seen, pool)
    assert pool.taken == {"A": [3000, 12000], "B": [6000, 2000]}


def test_what_is_granted_counts_at_once() -> None:
    sessions = [*jobs("ann", 3, (1000,)), *jobs("bob", 3, (1000,))]
    assert tried(tell(Drf(), view(sessions), always(PLACED))) == ["ann0", "bob0", "ann1", "bob1", "ann2", "bob2"]


def test_all_sessions_of_a_user_count_together() -> None:
    held = [holding("ann", (2000,)), holding("ann", (2000,)), holding("bob", (3000,))]
    assert tried(tell(Drf(), view([*jobs("ann", 1, (1000,)), *jobs("bob", 1, (1000,))], held=held), always(PLACED))) == ["bob0", "ann0"]


def test_a_higher_priority_goes_first_or_with_no_bands_orders_a_user_s_own() -> None:
    sessions = [*jobs("ann", 1, (1000,)), *jobs("bob", 1, (1000,)), waiting("hurry", "bob", priority=20)]
    held = [holding("bob", (1000,))]
    assert tried(tell(Drf(), view(sessions, held=held), always(PLACED))) == ["hurry", "ann0", "bob0"]
    assert tried(tell(Drf(Drf.Config(bands=False)), view(sessions, held=held), always(PLACED))) == ["ann0", "hurry", "bob0"]


def test_who_finds_no_room_keeps_its_place_and_the_user_s_next_is_tried() -> None:
    sessions = [*jobs("ann", 2, (1000,)), *jobs("bob", 1, (1000,))]
    assert tried(tell(Drf(), view(sessions), only("ann1", "bob0"))) == ["ann0", "Rann0", "ann1", "bob0"]


def test_of_equal_shares_whoever_has_waited_longest_goes_first() -> None:
    sessions = [waiting("late", "ann", submitted_at=NOW - 1), waiting("later", "bob")]
    assert tried(tell(Drf(), view(sessions), always(PLACED))) == ["late", "later"]


def test_a_slot_that_the_group_has_none_of_gives_nobody_a_share() -> None:
    assert dominant((5, 1000), (0, 4000)) == 0.25
    assert dominant((), (4000,)) == 0.0


DEMANDS = st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=4)
TOTAL = (24, 24)


def filled(demands: list[tuple[int, int]]) -> list[int]:
    """Return how many sessions each user gets who has more than enough of one kind; whoever finds no room gets no more.

    The properties are those of the progressive filling of the paper, which ends for a user when the next session does not fit.
    """
    seen = view([one for n, demand in enumerate(demands) for one in jobs(f"u{n}", 30, demand)], TOTAL)
    pool = Pool(seen)
    tell(Drf(Drf.Config(limit=10 ** 6)), seen, pool)
    return [pool.taken.get(f"u{n}", [0])[0] // demand[0] for n, demand in enumerate(demands)]


def share(demand: tuple[int, int], sessions: int) -> float:
    return max(sessions * demand[0] / TOTAL[0], sessions * demand[1] / TOTAL[1])


@given(DEMANDS)
def test_sharing_incentive(demands: list[tuple[int, int]]) -> None:
    """Nobody has a smaller share than if the group were cut in equal parts, but for one session of the largest that there are."""
    largest = max(share(demand, 1) for demand in demands)
    for demand, sessions in zip(demands, filled(demands), strict=True):
        assert share(demand, sessions) >= 1 / len(demands) - largest - 1e-9


@given(DEMANDS)
def test_envy_freeness(demands: list[tuple[int, int]]) -> None:
    """Nobody could run more, but for a session that does not fit, with what another had before his last one."""
    counts = filled(demands)
    for demand, sessions in zip(demands, counts, strict=True):
        for other, several in zip(demands, counts, strict=True):
            assert sessions >= min((several - 1) * has // asks for has, asks in zip(other, demand, strict=True)) - 1


@given(DEMANDS)
def test_nothing_that_somebody_could_use_is_left(demands: list[tuple[int, int]]) -> None:
    """Pareto efficiency: what is over is too little for anybody."""
    counts = filled(demands)
    left = [total - sum(n * demand[slot] for n, demand in zip(counts, demands, strict=True)) for slot, total in enumerate(TOTAL)]
    assert not any(all(has >= asks for has, asks in zip(left, demand, strict=True)) for demand in demands)


@given(DEMANDS)
def test_shares_are_equal_but_for_the_last_session(demands: list[tuple[int, int]]) -> None:
    """Whoever has less than another could not have had one session more before the other got the last one."""
    counts = filled(demands)
    for demand, sessions in zip(demands, counts, strict=True):
        for other, several in zip(demands, counts, strict=True):
            if share(demand, sessions) < share(other, several - 1):
                left = [total - sum(n * d[slot] for n, d in zip(counts, demands, strict=True)) for slot, total in enumerate(TOTAL)]
                assert any(has < asks for has, asks in zip(left, demand, strict=True))
