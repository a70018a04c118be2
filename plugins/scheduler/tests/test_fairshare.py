"""Fair shares over time: level by level, by weight, with what is granted counted at once."""

from __future__ import annotations

import sys
from math import inf, nan
from pathlib import Path

import pytest
from backendai.spec.scheduler_v10 import Account, Outcome, Waiting
from backendai_scheduler.fairshare import Fairshare
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))  # for played: pytest's importlib mode adds nothing itself
from played import NOW, Pool, always, holding, only, tell, tried, view, waiting

PLACED = Outcome.PLACED
Who = tuple[str, str, str]


def asked(id: str, who: Who, **more: object) -> Waiting:
    domain, project, user = who
    return waiting(id, user, project=project, domain=domain, **more)


def order(sessions: list[Waiting], accounts: dict[str, Account], **more: object) -> list[str]:
    return tried(tell(Fairshare(), view(sessions, accounts=accounts, **more), always(PLACED)))  # type: ignore[arg-type]  # passed on


def test_whoever_has_used_least_goes_first() -> None:
    sessions = [asked("a", ("uni", "lab", "ann")), asked("b", ("uni", "lab", "bob"))]
    assert order(sessions, {"lab/ann": Account(usage=50_000.0)}) == ["b", "a"]


def test_use_is_measured_by_weight() -> None:
    sessions = [asked("a", ("uni", "lab", "ann")), asked("b", ("uni", "lab", "bob"))]
    accounts = {"lab/ann": Account(1.0, 50_000.0), "lab/bob": Account(4.0, 100_000.0)}
    assert order(sessions, accounts) == ["b", "a"]


def test_the_domain_comes_before_the_project_and_the_project_before_the_user() -> None:
    """Whoever is needy himself waits if his project has had much, as in a fair tree."""
    sessions = [asked("a", ("rich", "lab", "ann")), asked("b", ("poor", "big", "bob")), asked("c", ("poor", "small", "cat"))]
    accounts = {"rich": Account(usage=90_000.0), "poor": Account(usage=50_000.0), "big": Account(usage=40_000.0),
                "small": Account(usage=10_000.0), "small/cat": Account(usage=10_000.0)}
    assert order(sessions, accounts) == ["c", "b", "a"]


def test_the_factor_of_slurm_gives_the_same_order() -> None:
    """F = 2^(-U/S), with the parts of use and of weight among siblings, falls as use by weight grows."""
    accounts = {f"lab/u{n}": Account(weight, used) for n, (weight, used) in enumerate([(1.0, 9e5), (2.0, 1e6), (3.0, 9e5), (1.0, 1e5)])}
    uses, weights = sum(a.usage for a in accounts.values()), sum(a.weight for a in accounts.values())
    factor = {key: 2 ** -((a.usage / uses) / (a.weight / weights)) for key, a in accounts.items()}
    sessions = [asked(f"u{n}", ("uni", "lab", f"u{n}")) for n in range(4)]
    assert order(sessions, accounts) == sorted(("u0", "u1", "u2", "u3"), key=lambda user: -factor[f"lab/{user}"])


def test_what_is_granted_counts_at_once_so_that_one_user_does_not_take_all() -> None:
    sessions = [asked(f"a{n}", ("uni", "lab", "ann")) for n in range(3)] + [asked(f"b{n}", ("uni", "lab", "bob")) for n in range(3)]
    assert order(sessions, {}) == ["a0", "b0", "a1", "b1", "a2", "b2"]


def test_what_is_held_counts_ahead_so_that_the_next_look_remembers_the_last() -> None:
    sessions = [asked("a", ("uni", "lab", "ann")), asked("b", ("uni", "lab", "bob"))]
    assert order(sessions, {}, held=[holding("ann", (1000,))]) == ["b", "a"]
    nearly_over = [holding("ann", (1000,), ends_by=NOW + 60), holding("bob", (1000,), ends_by=NOW + 1)]
    assert order(sessions, {}, held=nearly_over) == ["b", "a"]


def test_short_sessions_count_for_less() -> None:
    sessions = [asked("a0", ("uni", "lab", "ann"), time_limit_s=600.0), asked("a1", ("uni", "lab", "ann")),
                asked("b0", ("uni", "lab", "bob"), time_limit_s=60.0), asked("b1", ("uni", "lab", "bob"))]
    assert order(sessions, {}) == ["a0", "b0", "b1", "a1"]


def test_whoever_is_not_known_has_used_nothing() -> None:
    sessions = [asked("a", ("uni", "lab", "ann")), asked("n", ("new", "one", "eve"))]
    assert order(sessions, {"uni": Account(usage=1.0)}) == ["n", "a"]


@pytest.mark.parametrize("odd", [Account(0.0), Account(-1.0), Account(nan), Account(inf), Account(1.0, inf)], ids=repr)
def test_whoever_has_no_weight_goes_last(odd: Account) -> None:
    sessions = [asked("a", ("uni", "lab", "ann")), asked("b", ("uni", "lab", "bob"))]
    assert order(sessions, {"lab/ann": odd, "lab/bob": Account(usage=1e9)}) == ["b", "a"]


def test_a_higher_priority_goes_first_or_with_no_bands_orders_a_user_s_own() -> None:
    sessions = [asked("a", ("uni", "lab", "ann")), asked("b", ("uni", "lab", "bob")), asked("hurry", ("uni", "lab", "bob"), priority=20)]
    accounts = {"lab/bob": Account(usage=50_000.0)}
    seen = view(sorted(sessions, key=lambda one: one.submitted_at), accounts=accounts)
    assert tried(tell(Fairshare(), seen, always(PLACED))) == ["hurry", "a", "b"]
    assert tried(tell(Fairshare(Fairshare.Config(bands=False)), seen, always(PLACED))) == ["a", "hurry", "b"]


def test_who_finds_no_room_keeps_its_place_and_others_are_tried() -> None:
    sessions = [asked("a0", ("uni", "lab", "ann")), asked("a1", ("uni", "lab", "ann")), asked("b", ("uni", "two", "bob"))]
    assert tried(tell(Fairshare(), view(sessions), only("b"))) == ["a0", "Ra0", "a1", "b"]


@given(st.lists(st.integers(1, 4), min_size=2, max_size=4))
def test_in_a_group_that_is_always_wanted_everybody_gets_the_part_of_his_weight(weights: list[int]) -> None:
    """Of 60 equal sessions nobody has had his last while another, who wanted more, had less for his weight."""
    sessions = [asked(f"u{n}-{m}", ("uni", "lab", f"u{n}")) for n in range(len(weights)) for m in range(60)]
    seen = view(sessions, (60_000,), accounts={f"lab/u{n}": Account(float(weight)) for n, weight in enumerate(weights)})
    pool = Pool(seen)
    tell(Fairshare(), seen, pool)
    counts = [pool.taken[f"u{n}"][0] // 1000 for n in range(len(weights))]
    assert sum(counts) == 60
    for count, weight in zip(counts, weights, strict=True):
        assert all((other - 1) / theirs <= count / weight for other, theirs in zip(counts, weights, strict=True))


@given(st.lists(st.tuples(st.sampled_from("AB"), st.sampled_from("pq"), st.sampled_from("uvw")), max_size=12))
def test_everybody_is_tried_once(whos: list[Who]) -> None:
    sessions = [asked(f"s{n}", (domain, f"{domain}{project}", user)) for n, (domain, project, user) in enumerate(whos)]
    assert sorted(order(sessions, {})) == sorted(one.id for one in sessions)


@pytest.mark.parametrize("wrong", [0.0, -1.0, inf, nan])
def test_an_option_that_means_nothing_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match="ahead_s"):
        Fairshare.Config(ahead_s=wrong)
