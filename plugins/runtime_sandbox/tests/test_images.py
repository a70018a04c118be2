"""Images: the node itself, folders, tarballs."""

from __future__ import annotations

import asyncio
import gzip
import io
import os
import shutil
import tarfile
from pathlib import Path

import pytest
from backendai.model.errors import Failure
from backendai.spec.runtime_v10 import Progress
from backendai_runtime_sandbox.config import Config
from backendai_runtime_sandbox.plugin import Sandbox
from sandbox_inside import output, pieces, run, spec

pytestmark = pytest.mark.system
BUSYBOX = ("/bin/sh", "/bin/cat", "/bin/ls", "/bin/touch", "/usr/bin/id")


def silent(_: Progress) -> None:
    """Tell nobody."""


@pytest.fixture
def rootfs(root: Path) -> Path:
    """Make a small root filesystem of some of the node's programs, with a link that leads out of it."""
    folder = root / "rootfs"
    for name in ("bin", "usr/bin", "etc", "data"):
        (folder / name).mkdir(parents=True)
    for program in BUSYBOX:
        _install(folder, Path(program))
    (folder / "etc" / "group").symlink_to(root / "token")
    for name in ("passwd", "hostname"):
        (folder / "etc" / name).touch()
    (folder / "root").mkdir()
    (folder / "mark").write_text("the image\n")
    (root / "token").write_text("secret")
    return folder


def _install(folder: Path, program: Path) -> None:
    target = folder / program.relative_to("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        shutil.copy(program, target)
    for line in os.popen(f"ldd {program}").read().splitlines():
        word = next((word for word in line.split() if word.startswith("/")), None)
        if word is not None:
            (folder / Path(word).parent.relative_to("/")).mkdir(parents=True, exist_ok=True)
            shutil.copy(word, folder / Path(word).relative_to("/"))


def tarball(rootfs: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(rootfs, arcname=".")
    return buffer.getvalue()


async def test_the_node_itself_is_an_image(sandbox: Sandbox) -> None:
    assert [image.name for image in await sandbox.images()] == ["host"]
    assert (await sandbox.ensure_image("host", silent)).name == "host"
    with pytest.raises(Failure, match="it has: host") as caught:
        await sandbox.ensure_image("debian:bookworm", silent)
    assert caught.value.code == "bad-image"


SCRIPT = ("cat /mark; id -u; ls -A /home /root; touch /data/mine /mine 2>/dev/null; cat /etc/group; cat /etc/hostname;"
          "echo > /tmp/a && echo whole")


@pytest.mark.parametrize("overlay", [True, False])
async def test_a_folder_is_an_image(root: Path, rootfs: Path, overlay: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox = Sandbox(Config(state_dir=str(root), images={"small": str(rootfs)}))
    found = (await sandbox.probe(), await sandbox.ensure_image("small", silent))[1]
    engine = await sandbox._get()
    assert engine.node.overlay
    if not overlay:
        monkeypatch.setattr(engine, "node", type(engine.node)(engine.node.shim, engine.node.privileged, engine.node.cgroups, False, ""))
    outcome = await run(sandbox, SCRIPT, image=found.name, argv=("/bin/sh", "-c", SCRIPT))
    lines = outcome.out.splitlines()
    assert lines[:2] == ["the image", "1000"], outcome
    assert lines[-2:] == ["main1", "whole"]
    assert "secret" not in outcome.out
    assert not await asyncio.to_thread(lambda: (rootfs / "mine").exists() or (rootfs / "data" / "mine").exists())
    await sandbox.teardown()


@pytest.mark.parametrize("packed", [False, True])
async def test_a_tarball_becomes_an_image(sandbox: Sandbox, rootfs: Path, packed: bool) -> None:
    data = tarball(rootfs)
    image = await sandbox.build_image("my/small:1", pieces(b"", *((gzip.compress(data),) if packed else (data[:5], data[5:]))), silent)
    assert image.name == "my/small:1" and image.id.startswith("sha256:") and image.size
    assert [image.name for image in await sandbox.images()] == ["host", "my/small:1"]
    id = await sandbox.create(spec("", image="my/small:1", argv=("/bin/cat", "/mark")))
    with pytest.raises(Failure) as caught:
        await sandbox.remove_image("my/small:1")
    assert caught.value.code == "conflict"
    await sandbox.start(id)
    assert (await output(sandbox, id))[0] == b"the image\n"
    await sandbox.remove(id)
    await sandbox.remove_image("my/small:1")
    assert [image.name for image in await sandbox.images()] == ["host"]


async def test_a_tarball_of_the_operator_is_unpacked_when_it_is_needed(root: Path, rootfs: Path) -> None:
    (root / "small.tar").write_bytes(tarball(rootfs))
    sandbox = Sandbox(Config(state_dir=str(root), images={"small": str(root / "small.tar")}))
    assert (await sandbox.ensure_image("small", silent)).size
    assert (await run(sandbox, "", image="small", argv=("/bin/cat", "/mark"))).out == "the image\n"
    await sandbox.teardown()


@pytest.mark.parametrize(("name", "data", "code"), [
    ("junk", b"this is no tarball" * 1000, "bad-image"), ("../up", b"", "bad-name"), ("host", b"", "bad-name"),
])
async def test_what_is_no_image_is_refused(sandbox: Sandbox, root: Path, name: str, data: bytes, code: str) -> None:
    with pytest.raises(Failure) as caught:
        await sandbox.build_image(name, pieces(data), silent)
    assert caught.value.code == code
    assert not list((root / "images").iterdir())


async def test_a_recipe_is_refused(sandbox: Sandbox, root: Path) -> None:
    (root / "recipe").mkdir()
    (root / "recipe" / "Dockerfile").write_text("FROM scratch\n")
    with pytest.raises(Failure, match="Dockerfile"):
        await sandbox.build_image("recipe", pieces(tarball(root / "recipe")), silent)
