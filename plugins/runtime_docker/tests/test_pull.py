"""Images from a registry: a real one on this machine, and the engine's words about pulls."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tarfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from backendai.model.errors import Failure
from backendai.spec.runtime_v10 import Progress
from backendai_runtime_docker.images import Layers

from tests.parts.absent import Absent, give_up


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """The address of a registry that has nothing yet."""
    program = shutil.which("docker-registry")
    if program is None:
        give_up(Absent("docker-registry is not installed (apt-get install docker-registry)"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = tmp_path / "registry.yml"
    config.write_text(f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {tmp_path}/images}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n")
    argv = [program, "serve", str(config)]
    with (tmp_path / "registry.log").open("wb") as log, subprocess.Popen(argv, stdout=log, stderr=log) as process:
        try:
            for _ in range(100):
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/", timeout=1):
                        break
                except OSError:
                    assert process.poll() is None
                    process_wait(process)
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()


def process_wait(process: subprocess.Popen[bytes]) -> None:
    """Give the registry a moment, or notice its end."""
    try:
        process.wait(0.1)
    except subprocess.TimeoutExpired:
        return


@pytest.mark.docker
async def test_an_image_is_pulled_with_progress(bench: Any, registry: str, docker_engine: Any, tmp_path: Path) -> None:
    if bench.podman:
        pytest.skip("Podman wants such a registry in its configuration")
    name = f"{registry}/some/image:1"
    (tmp_path / "blob").write_bytes(os.urandom(8_000_000))
    with tarfile.open(tmp_path / "layer.tar", "w") as archive:
        archive.add(tmp_path / "blob", "blob")
    docker_engine.run("import", str(tmp_path / "layer.tar"), name)
    docker_engine.run("push", name)
    await bench.runtime.remove_image(name)
    said: list[Progress] = []
    try:
        image = await bench.runtime.ensure_image(name, said.append)
        assert image.name == name
        assert said[0].text == f"Pulling {name}"
        assert said[-1].text == f"Pulling {name}, 1 of 1 layers"
        assert any(progress.done and progress.total and progress.total > 7_000_000 for progress in said)
        await bench.runtime.ensure_image(name, lambda _: pytest.fail("it is here"))
    finally:
        await bench.runtime.remove_image(name)
    with pytest.raises(Failure, match="no image") as caught:
        await bench.runtime.ensure_image(f"{registry}/some/image:2", said.append)
    assert caught.value.code == "bad-image"


def test_progress_counts_layers_and_bytes() -> None:
    layers = Layers("a:1")
    assert layers.progress() == Progress("Pulling a:1")
    for layer in "xy":
        layers.take({"status": "Pulling fs layer", "id": layer})
    layers.take({"status": "Pulling from a", "id": "1"})
    layers.take({"status": "Already exists", "id": "z"})
    layers.take({"status": "Downloading", "id": "x", "progressDetail": {"current": 10, "total": 100}})
    assert layers.progress() == Progress("Pulling a:1, 1 of 3 layers", 10, 100)
    for line in ({"status": "Download complete", "id": "x"}, {"status": "Pull complete", "id": "x"}, {"status": "Status: Downloaded"}):
        layers.take(line)
    assert layers.progress() == Progress("Pulling a:1, 2 of 3 layers", 100, 100)
