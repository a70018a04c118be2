"""A storm over many sessions with the real driver and threads, on both databases; tests/faults runs thousands of small ones."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from core.tests.manager.books import Books
from core.tests.manager.calm import calm
from core.tests.manager.scene import found, people
from core.tests.manager.single import Fates
from core.tests.manager.stage import staged
from core.tests.manager.storm import Storm

pytestmark = pytest.mark.system  # long: half a minute of restarts and storms


async def test_after_a_storm_everybody_has_ended_and_nothing_is_left(tmp_path: Path, db_url: str) -> None:
    async with staged(tmp_path, db_url) as stage:
        await stage.box("ready")  # so that it is known which slots there are
        await found(stage)
        await stage.boxes.pop().leave()
        await people(stage, Random(1))
        storm = Storm(stage, 1, Fates(Random(1)), Books(lambda: stage.now))
        await storm.blow(60, 40)
        assert (await calm(storm)).total() > 0
