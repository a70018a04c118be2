"""What the laws of a runtime work with: a bench that says when there is no engine, and leaves nothing behind."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from backendai.model.errors import Failure
from backendai.spec import hookimpl
from backendai.spec.runtime_v10 import Capabilities
from backendai.testing.check import Grade, check, kit_of
from backendai.testing.containers import make_bench
from backendai.testing.laws import NotHere, Violation
from backendai.testing.null_runtime import NullRuntime

sys.path.insert(0, str(Path(__file__).parent))  # for the module beside: pytest's importlib mode adds nothing itself
from toy_runtime import BOXES, Toy


class Down(NullRuntime):
    @hookimpl
    async def probe(self) -> Capabilities:
        raise Failure("unavailable", "The engine does not run; start it.")


def test_without_an_engine_there_is_no_grade() -> None:
    report = check(kit_of("runtime_v10"), Down)
    assert report.grade is Grade.NONE
    assert {one.why for one in report.results[2:]} == {"it is not usable here: The engine does not run; start it."}


async def test_the_bench_removes_what_was_made() -> None:
    async with make_bench(Toy(), "", 5.0) as bench:
        await bench.idle()
        folder = bench.folder
        assert len(BOXES) == 1 and folder.is_dir()
    assert not BOXES
    assert not folder.exists()


async def test_what_a_runtime_lacks_is_not_tried() -> None:
    async with make_bench(Toy(), "", 5.0) as bench:
        bench.need("survives")
        bench.need("commands")
        with pytest.raises(NotHere, match="The toy has no walls"):
            bench.need("network-private")
        with pytest.raises(NotHere, match="toy 1 does not have the feature pids"):
            bench.need("pids")


async def test_what_never_comes_is_a_violation() -> None:
    async def nothing() -> None:
        return None

    async with make_bench(NullRuntime(), "", 0.05) as bench:
        with pytest.raises(Violation, match=r"waiting for the moon took more than 0\.05 s"):
            await bench.until(nothing, "the moon")
        id = await bench.idle()
        with pytest.raises(Violation, match="did not come to an end"):
            await bench.output(id)
    assert not bench.folder.exists()
