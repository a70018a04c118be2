"""The small parts: scratch folders, the static init, devices, health, what is seen of a container, and the choice of a runtime."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from backendai.agent import accelerators, init
from backendai.agent.devices import Devices
from backendai.agent.health import Health, explain, is_passing
from backendai.agent.journal import Entry
from backendai.agent.kernel import Kernel
from backendai.agent.node import Outbox, describe
from backendai.agent.output import Output
from backendai.agent.scratch import make_scratch, remove_scratch
from backendai.agent.serve import choose_runtime
from backendai.model.errors import Failure
from backendai.model.slots import SlotDecl, SlotKind
from backendai.plugin.errors import Missing, PluginFault
from backendai.spec.accelerator_v21 import Device, Grant, Sample
from backendai.spec.runtime_v10 import Capabilities, Container, ContainerState, Edits, Progress
from backendai.wire.link import KernelOrder


def test_a_scratch_is_removed_whatever_is_in_it_and_links_are_not_followed(tmp_path: Path) -> None:
    folder, outside = tmp_path / "k", tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    make_scratch(folder, (os.getuid(), os.getgid()))
    make_scratch(folder, (os.getuid(), os.getgid()))
    work = folder / "work"
    (work / "link").symlink_to(outside)
    (work / "locked").mkdir()
    (work / "locked" / "file").write_text("x")
    (work / "locked").chmod(0)
    os.mkfifo(work / "pipe")
    deep = work
    for _ in range(300):
        deep /= "a-rather-long-name"
        if len(str(deep)) > 3000:
            break
        deep.mkdir()
    remove_scratch(folder)
    remove_scratch(folder)
    assert not folder.exists() and (outside / "precious").read_text() == "x"


@pytest.mark.skipif(not any(map(shutil.which, init.COMPILERS)), reason="needs a C compiler")
async def test_the_static_init_is_built_once_and_passes_the_exit_code_on(tmp_path: Path) -> None:
    program = await init.build_init(tmp_path)
    made = program.stat().st_mtime_ns
    assert await init.build_init(tmp_path) == program and program.stat().st_mtime_ns == made
    process = await asyncio.create_subprocess_exec(program, "--", "sh", "-c", "exit 7")
    assert await asyncio.wait_for(process.wait(), 20) == 7


async def test_without_a_compiler_the_reason_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(init.NoInit, match="install gcc"):
        await init.build_init(tmp_path)


async def test_a_compiler_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cc").write_text("#!/bin/sh\necho broken >&2\nexit 1\n")
    (tmp_path / "cc").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(init.NoInit, match="broken"):
        await init.build_init(tmp_path)


class Gpu:
    """An accelerator plugin that remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.broken = False

    def slots(self) -> list[SlotDecl]:
        return [SlotDecl("gpu", SlotKind.COUNT, quantum=1000)]

    async def devices(self) -> list[Device]:
        if self.broken:
            raise PluginFault("gpu", "gpus", "devices", "no answer")
        return [Device("g0", {"gpu": 1000})]

    def edits(self, grants: list[Grant]) -> Edits:
        return Edits(env={"GPUS": ",".join(grant.device for grant in grants)})

    async def prepare(self, container: str, grants: list[Grant]) -> None:
        self.asked.append(("prepare", container))

    async def release(self, container: str, grants: list[Grant]) -> None:
        self.asked.append(("release", container))


async def test_devices_are_found_lent_prepared_and_released_by_their_own_plugin() -> None:
    gpu: Any = Gpu()
    cpu: Any = accelerators.Cpu(accelerators.Cpu.Config())
    devices = Devices({"gpu": gpu, "cpu": cpu})
    assert await devices.discover()
    assert not await devices.discover()
    grants = devices.allocator.take("k", {"gpu": 1000, "cpu": 100})
    assert devices.edits(grants).env == {"GPUS": "g0"}
    await devices.prepare("c", grants)
    await devices.release("c", grants)
    assert gpu.asked == [("prepare", "c"), ("release", "c")]
    gpu.broken = True
    assert not await devices.discover()  # what fails keeps its devices
    assert devices.allocator.capacity()["gpu"] == 1000


class Measured(Gpu):
    """One that measures its two devices; a third it cannot."""

    async def devices(self) -> list[Device]:
        return [Device(name, {"gpu": 1000}) for name in ("g0", "g1", "g2")]

    async def sample(self) -> list[Sample]:
        self.asked.append(("sample",))
        if self.broken:
            raise PluginFault("gpu", "gpus", "sample", "no answer")
        return [Sample("g0", 0.5), Sample("g1", 1.0), Sample("g2")]


async def test_how_busy_the_devices_of_a_kernel_are_is_their_mean() -> None:
    gpu: Any = Measured()
    devices = Devices({"gpu": gpu, "cpu": accelerators.Cpu(accelerators.Cpu.Config())})  # type: ignore[dict-item]  # as the host types it
    await devices.discover()
    two, one, none = [Grant("g0", "gpu", 1000), Grant("g1", "gpu", 1000)], [Grant("g2", "gpu", 1000)], [Grant("cpu", "cpu", 500)]
    assert await devices.busy({"two": two, "one": one, "none": none}) == {"two": {"gpu": 0.75}}
    gpu.asked.clear()
    assert await devices.busy({"none": none}) == {} and gpu.asked == [], "nobody is asked for what nobody holds"
    gpu.broken = True
    assert await devices.busy({"two": two}) == {}, "a failure costs the measurement and no more"


async def test_cpu_and_memory_lend_what_the_machine_has_but_for_the_reserve() -> None:
    cpu, memory = accelerators.Cpu(accelerators.Cpu.Config(reserve=0.5)), accelerators.Memory(accelerators.Memory.Config(reserve=1 << 20))
    assert (await cpu.devices())[0].slots == {"cpu": round((accelerators.usable_cores() - 0.5) * 1000)}
    assert (await memory.devices())[0].slots == {"mem": accelerators.usable_memory() - (1 << 20)}
    assert cpu.edits([]) == memory.edits([]) == Edits()


def test_limits_of_control_groups_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerators, "_own_groups", lambda controller: [tmp_path] if controller == "" else [])
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    (tmp_path / "memory.max").write_text("1048576\n")
    assert accelerators.usable_cores() == 0.5 and accelerators.usable_memory() == 1 << 20


def test_health_is_told_when_it_changes() -> None:
    heard: list[str] = []
    health = Health()
    health.heard = lambda: heard.append(health.why)
    health.well(Capabilities("e", "i"))
    health.well(Capabilities("e", "i"))
    fault = PluginFault("runtime_v10.toy", "toys", "list", "no answer")
    fault.__cause__ = TimeoutError()
    health.ill(fault)
    health.ill(fault)
    health.well()
    assert heard == ["", "The container runtime did not answer in time (list); ask your administrator to look at the agent.", ""]
    assert is_passing(fault) and is_passing(Failure("unavailable", "x")) and not is_passing(Failure("bad-image", "x"))
    assert "No space left" in explain(OSError(28, "No space left on device")) and "ValueError" in explain(ValueError("secret"))
    assert "secret" not in explain(ValueError("secret"))


def test_what_is_seen_only_grows_older_and_absence_must_be_fresh(tmp_path: Path) -> None:
    kernel = Kernel(Entry(KernelOrder("k", "s", "n", "o")), Output(tmp_path / "k", 1))
    running, ended = Container("c", "n", ContainerState.RUNNING), Container("c", "n", ContainerState.EXITED, exit_code=0)
    before = time.monotonic()
    with kernel.acting():
        kernel.see(running, time.monotonic())
        assert kernel.container is None and kernel.stale
    kernel.see(running, before)
    assert kernel.container is None
    kernel.see(running, time.monotonic())
    assert kernel.container is running and kernel.changed.is_set()
    kernel.see(None, before)
    assert kernel.container is running
    kernel.see(ended, before)
    kernel.see(running, time.monotonic())
    assert kernel.container is ended
    kernel.see(None, time.monotonic())
    assert kernel.container is None


def test_the_outbox_keeps_only_the_newest_word() -> None:
    outbox = Outbox()
    for done in (1 << 20, 2 << 20):
        outbox.advance("k", Progress("Fetching", done, 4 << 20))
    outbox.tell("a")
    outbox.tell("b")
    outbox.tell("a")
    outbox.beat()
    assert outbox.wake.is_set()
    assert outbox.take() == (["a", "b"], {"k": "Fetching, 1m of 4m"}, True)
    assert outbox.take() == ([], {}, False) and not outbox.wake.is_set()
    assert describe(Progress("Waiting")) == "Waiting" and describe(Progress("x", 5)) == "x, 5"


class Host:
    """A plugin host with runtimes that answer, do not, or are missing."""

    def __init__(self, **runtimes: bool) -> None:
        self.runtimes = runtimes

    def one(self, spec: Any, name: str) -> Any:
        if name not in self.runtimes:
            raise Missing(f"{name} is not installed")
        host = self

        class Runtime:
            async def probe(self) -> Capabilities:
                if not host.runtimes[name]:
                    raise Failure("unavailable", f"{name} does not answer.")
                return Capabilities(name, "i")

        return Runtime()


def test_the_runtime_is_chosen_by_what_answers() -> None:
    async def choose(host: Any, wanted: str = "auto", before: str = "", holds: bool = False) -> str:
        return await choose_runtime(host, wanted, before, holds)

    async def all_ways() -> None:
        assert await choose(Host(docker=True, sandbox=True)) == "docker"
        assert await choose(Host(docker=False, sandbox=True)) == "sandbox"
        assert await choose(Host(sandbox=True), before="docker") == "sandbox"
        assert await choose(Host(docker=False, null=False), "null") == "null"
        assert await choose(Host(docker=False, sandbox=True), before="docker", holds=True) == "docker"  # its containers are there
        with pytest.raises(Failure, match=r"docker does not answer\. sandbox: sandbox is not installed"):
            await choose(Host(docker=False))
        with pytest.raises(Failure, match="The runtime null cannot be used"):
            await choose(Host(docker=True), "null")
        with pytest.raises(Failure, match="still holds kernels on the runtime docker"):
            await choose(Host(docker=True, sandbox=True), "sandbox", "docker", True)

    asyncio.run(all_ways())
