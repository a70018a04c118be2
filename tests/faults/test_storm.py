"""Under kills at random moments every session ends or goes on, nothing is left, and no line of output is lost."""

from __future__ import annotations

import os
import time

import pytest

from tests.faults.storm import Storm, death_of
from tests.parts import docker, image
from tests.parts.absent import Absent, give_up
from tests.parts.platform import Platform

SEED = int(os.environ.get("BACKENDAI_TEST_SEED", "20261123"))
pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]


def weather(storm: Storm, capsys: pytest.CaptureFixture[str]) -> None:
    """Run a storm, print its summary, remove everything, and hold it to its promise."""
    try:
        storm.platform.start()
        storm.run()
    finally:
        with capsys.disabled():
            print(f"\n{storm.summary()}")
        left = storm.platform.remove()
    assert storm.wrong == []
    assert left == []


def test_manager_and_agents_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    platform = Platform("sandbox", names=("east", "west"))
    deaths = {role: death_of(platform, role) for role in ("manager", "east", "west")}
    weather(Storm(platform, SEED, 140, deaths), capsys)


def test_one_process(capsys: pytest.CaptureFixture[str]) -> None:
    platform = Platform("sandbox")
    weather(Storm(platform, SEED + 100, 60, {"up": death_of(platform, "up")}), capsys)


@pytest.mark.docker
def test_one_process_on_an_engine_that_dies_too(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BACKENDAI_TEST_DOCKER", raising=False)  # a shared engine is nobody's to kill
    monkeypatch.delenv("BACKENDAI_TEST_IMAGE", raising=False)
    try:
        with docker.own_engine() as engine:
            platform = Platform("docker", image.base_image(engine), engine.url)
            storm = Storm(platform, SEED + 200, 30, {"up": death_of(platform, "up")}, pause_s=(1.0, 4.0))
            storm.deaths["dockerd"] = lambda chance: storm.blind.append(restart(engine, chance.uniform(0, 1.5)))
            weather(storm, capsys)
    except Absent as why:
        give_up(why)


def restart(engine: docker.Engine, down_s: float) -> tuple[float, float]:
    """Kill the engine and start it again; return from when to when it was blind, with what it takes to see all again."""
    begun = time.time()
    engine.kill()
    time.sleep(down_s)
    engine.start()
    return begun, time.time() + 2.0
