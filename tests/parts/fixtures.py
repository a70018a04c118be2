"""Fixtures for the real parts, one of each for the whole run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.parts import docker, image, postgres
from tests.parts.absent import Absent, give_up

if TYPE_CHECKING:
    from tests.parts.inside import Inside


@pytest.fixture(scope="session")
def _parts() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture(scope="session")
def docker_engine(_parts: ExitStack) -> docker.Engine:
    """A Docker engine that answers; ours alone unless BACKENDAI_TEST_DOCKER names one."""
    try:
        return _parts.enter_context(docker.docker_engine())
    except Absent as why:
        give_up(why)


@pytest.fixture(scope="session")
def base_image(docker_engine: docker.Engine) -> str:
    """The name of a minimal image on ``docker_engine``."""
    try:
        return image.base_image(docker_engine)
    except Absent as why:
        give_up(why)


@pytest.fixture(scope="session")
def postgres_server(_parts: ExitStack) -> str:
    """The URL of a PostgreSQL server; its database ``postgres`` is for making others."""
    try:
        return _parts.enter_context(postgres.postgres_server())
    except Absent as why:
        give_up(why)


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inside]:
    """A platform on a thread of this process, whose containers are quick and need nothing."""
    from tests.parts.inside import platform_inside  # here, because few tests need it

    with platform_inside(tmp_path_factory.mktemp("inside")) as platform:
        yield platform
