"""How a mutant is tried: a deliberately broken plugin that must break exactly the law it is named for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from backendai.spec import hookimpl
from backendai.testing.check import check, kit_of, laws

GENERAL = ("test_it_fits_its_contract", "test_it_starts_and_stops")
Mutants = Mapping[str, Callable[..., Any]]


def general(spec: str, good: type[Any]) -> dict[str, Callable[..., Any]]:
    """Return mutants of *good* for the laws that every contract has."""
    name = next(iter(kit_of(spec).spec.hooks()))

    class Unfit(good):  # type: ignore[misc]  # any class
        pass

    class Unstoppable(good):  # type: ignore[misc]  # any class
        async def teardown(self) -> None:
            raise RuntimeError("it hangs on")

    @hookimpl
    def strange(self: Any, unheard_of: int) -> None:
        """Want an argument that the contract does not have."""

    setattr(Unfit, name, strange)
    return dict(zip(GENERAL, (Unfit, Unstoppable), strict=True))


def cases(spec: str, mutants: Mapping[str, Any]) -> list[Any]:
    """Return one parameter set for each mutant, and make sure that no law is without one."""
    assert set(mutants) == {law.name for law in laws(kit_of(spec))}, "each law has a mutant and each mutant a law"
    return [pytest.param(law, mutant, id=law.removeprefix("test_")) for law, mutant in mutants.items()]


def breaks_only(spec: str, law: str, mutant: Callable[..., Any], **more: Any) -> None:
    """Assert that *mutant* breaks *law* and no other."""
    report = check(kit_of(spec), mutant, **more)
    assert report.broken == [law], "\n".join(f"{one.outcome} {one.law.name}: {one.why}" for one in report.results)


def holds_all(spec: str, good: Callable[..., Any] | str, **more: Any) -> None:
    """Assert that a good plugin earns an A."""
    report = check(kit_of(spec), good, **more)
    assert report.grade == "A", "\n".join(f"{one.outcome} {one.law.name}: {one.why}" for one in report.results)
