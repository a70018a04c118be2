"""Whole platforms, one per runtime for all tests that only use it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.parts.docker import Engine
from tests.parts.platform import Platform


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "/tests/system/" in str(item.path):
            item.add_marker(pytest.mark.system)


def make(runtime: str, request: pytest.FixtureRequest, **more: object) -> Platform:
    """Return a platform that is not started, on the part that its runtime needs."""
    if runtime != "docker":
        return Platform(runtime, **more)  # type: ignore[arg-type]  # the fields go through
    engine: Engine = request.getfixturevalue("docker_engine")
    return Platform(runtime, request.getfixturevalue("base_image"), engine.url, **more)  # type: ignore[arg-type]  # as above


RUNTIMES = [pytest.param("sandbox"), pytest.param("docker", marks=pytest.mark.docker)]


@pytest.fixture(scope="session", params=RUNTIMES)
def platform(request: pytest.FixtureRequest) -> Iterator[Platform]:
    """A platform that runs, shared by the tests of one runtime; each takes names of its own."""
    made = make(request.param, request)
    try:
        made.start()
        yield made
    finally:
        left = made.remove()
    assert left == []


@pytest.fixture(params=RUNTIMES)
def own(request: pytest.FixtureRequest) -> Iterator[Platform]:
    """A platform that a test may kill; it starts it by itself."""
    made = make(request.param, request)
    try:
        yield made
    finally:
        left = made.remove()
    assert left == []


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A session's name that no other test takes."""
    return f"s{os.getpid()}-{abs(hash(request.node.nodeid)) % 10**12}"
