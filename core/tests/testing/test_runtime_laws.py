"""Each law of a runtime catches the runtime that breaks it, and no other law does."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from backendai.model.errors import Failure
from backendai.spec import hookimpl
from backendai.spec.runtime_v10 import Container, ContainerSpec, ContainerState, Event, Image, LogChunk, Network, NetworkSpec, Report, Usage

sys.path.insert(0, str(Path(__file__).parent))  # for the modules beside: pytest's importlib mode adds nothing itself
import broken
import toy_runtime
from toy_runtime import BOXES, LISTENERS, NETWORKS, Box, Inside, Port, Toy

SPEC = "runtime_v10"
pytestmark = pytest.mark.system  # runs real processes, and waits for them
S = ContainerState


class Boaster(Toy):
    features = Toy.features | {"levitation"}


class Nameless(Toy):
    @hookimpl
    async def ensure_image(self, image: str, report: Report) -> Image:
        return replace(await super().ensure_image(image, report), id="")


class Credulous(Toy):
    @hookimpl
    async def ensure_image(self, image: str, report: Report) -> Image:
        return Image(image, "sha256:1")


class Hasty(Toy):
    @hookimpl
    async def list(self, labels: Mapping[str, str]) -> Sequence[Container]:
        return [replace(now, state=S.RUNNING) if now.state is S.CREATED else now for now in await super().list(labels)]


class Doubler(Toy):
    @hookimpl
    async def create(self, container: ContainerSpec) -> str:
        id = f"toy-{container.name}-{len(BOXES)}"
        BOXES[id] = Box(container, Container(id, container.name, S.CREATED, dict(container.labels)))
        return id


class Unlabelled(Toy):
    @hookimpl
    async def create(self, container: ContainerSpec) -> str:
        return await super().create(replace(container, labels={key: value for key, value in container.labels.items() if value}))


class Restarter(Toy):
    @hookimpl
    async def start(self, id: str) -> None:
        if (box := self.box(id)).now.state is S.EXITED:
            box.now = replace(box.now, state=S.CREATED)
        await super().start(id)


class Quiet(Toy):
    @hookimpl
    async def start(self, id: str) -> None:
        try:
            await super().start(id)
        except Failure as failure:
            if failure.code != "runtime-fault":
                raise
            BOXES[id].now = replace(BOXES[id].now, state=S.EXITED, exit_code=127)


class Liar(Toy):
    @hookimpl
    async def list(self, labels: Mapping[str, str]) -> Sequence[Container]:
        return [replace(now, exit_code=-1) if now.exit_code == 255 else now for now in await super().list(labels)]


class Timeless(Toy):
    @hookimpl
    async def list(self, labels: Mapping[str, str]) -> Sequence[Container]:
        return [replace(now, ended_at=None) for now in await super().list(labels)]


class Rude(Toy):
    @hookimpl
    async def stop(self, id: str, signal: str, grace_s: float) -> None:
        await self.end(id, "SIGKILL", grace_s)


class Meek(Toy):
    @hookimpl
    async def stop(self, id: str, signal: str, grace_s: float) -> None:
        if (box := BOXES.get(id)) is not None and box.watcher is not None and box.now.state is S.RUNNING:
            box.kill(getattr(toy_runtime.signal, signal))
            await asyncio.wait([box.watcher], timeout=grace_s)


class Rewriter(Toy):
    @hookimpl
    async def stop(self, id: str, signal: str, grace_s: float) -> None:
        await self.end(id, signal, grace_s)
        if (box := BOXES.get(id)) is not None and box.now.exit_code == 0:
            box.now = replace(box.now, exit_code=143)


class Fussy(Toy):
    @hookimpl
    async def remove(self, id: str) -> None:
        self.box(id)
        await super().remove(id)


class Blank(Toy):
    @hookimpl
    async def logs(self, id: str, offset: int, follow: bool) -> AsyncIterator[LogChunk]:
        if id in BOXES:
            async for chunk in super().logs(id, offset, follow):
                yield chunk


class Curt(Toy):
    def box(self, id: str) -> Box:
        if id not in BOXES:
            raise Failure("not-found", "ENOENT")
        return BOXES[id]


class Gossip(Toy):
    @hookimpl
    async def events(self, labels: Mapping[str, str]) -> AsyncIterator[Event]:
        queue: asyncio.Queue[Event] = asyncio.Queue()
        LISTENERS[queue] = {}
        try:
            while True:
                yield await queue.get()
        finally:
            del LISTENERS[queue]


class Muddler(Toy):
    """Two that start at once get one another's status."""

    def __init__(self) -> None:
        self.starting = 0
        self.muddled: set[str] = set()

    @hookimpl
    async def start(self, id: str) -> None:
        self.starting += 1
        await asyncio.sleep(0.01)
        if self.starting > 1:
            self.muddled.add(id)
        await super().start(id)
        self.starting -= 1

    @hookimpl
    async def list(self, labels: Mapping[str, str]) -> Sequence[Container]:
        return [replace(now, exit_code=99) if now.id in self.muddled else now for now in await super().list(labels)]


class Forgetful(Toy):
    def __init__(self) -> None:
        self.mine: set[str] = set()

    @hookimpl
    async def create(self, container: ContainerSpec) -> str:
        self.mine.add(id := await super().create(container))
        return id

    @hookimpl
    async def list(self, labels: Mapping[str, str]) -> Sequence[Container]:
        return [now for now in await super().list(labels) if now.id in self.mine]


class Ghosts(Toy):
    @hookimpl
    async def stats(self, ids: Sequence[str]) -> Mapping[str, Usage]:
        return {id: Usage(cpu_s=0.5) for id in ids if id in BOXES}


class Rooted(Toy):
    features = Toy.features | {"user"}


class Ascii(Toy):
    @hookimpl
    async def create(self, container: ContainerSpec) -> str:
        env = {key: value.encode("ascii", "ignore").decode() for key, value in container.env.items()}
        return await super().create(replace(container, env=env))


class Translator(Toy):
    @hookimpl
    async def logs(self, id: str, offset: int, follow: bool) -> AsyncIterator[LogChunk]:
        async for chunk in super().logs(id, offset, follow):
            yield replace(chunk, data=chunk.data.replace(b"\r\n", b"\n"))


class Mixer(Toy):
    @hookimpl
    async def logs(self, id: str, offset: int, follow: bool) -> AsyncIterator[LogChunk]:
        async for chunk in super().logs(id, offset, follow):
            yield replace(chunk, stream=1)


class Skipper(Toy):
    @hookimpl
    async def logs(self, id: str, offset: int, follow: bool) -> AsyncIterator[LogChunk]:
        async for chunk in super().logs(id, offset, follow):
            yield replace(chunk, next=chunk.next + 1)


class Impatient(Toy):
    """It takes a silence for the end, told by a line that only one law writes, so that a slow machine changes nothing."""

    @hookimpl
    async def logs(self, id: str, offset: int, follow: bool) -> AsyncIterator[LogChunk]:
        async for chunk in super().logs(id, offset, follow):
            yield chunk
            if chunk.data == b"early\n":
                return


class Altered(Toy):
    """Its processes are of another class."""

    process: type[Inside] = Inside

    @hookimpl
    async def exec(self, id: str, argv: Sequence[str], env: Mapping[str, str], user: tuple[int, int] | None, workdir: str | None,
                   tty: bool) -> Any:
        box = self.running(id)
        folder = box.path(workdir or box.spec.workdir)
        return await self.process.open(argv, {**self.env(box), **env}, folder, tty)


class Forgiving(Altered):
    class process(Inside):  # noqa: N801 - an attribute
        async def exit_code(self) -> int:
            return 0 if (code := await super().exit_code()) < 100 else code


class OneStream(Altered):
    class process(Inside):  # noqa: N801 - an attribute
        async def take(self, stream: int, pipe: Any) -> None:
            await super().take(1, pipe)


class Choosy(Altered):
    class process(Inside):  # noqa: N801 - an attribute
        async def write(self, data: bytes) -> None:
            await super().write(data.replace(b"\0", b""))


class Plain(Altered):
    class process(Inside):  # noqa: N801 - an attribute
        async def exit_code(self) -> int:
            return {143: 15}.get(code := await super().exit_code(), code)


class Vague(Altered):
    class process(Inside):  # noqa: N801 - an attribute
        async def exit_code(self) -> int:
            return {127: 1}.get(code := await super().exit_code(), code)


class Rigid(Altered):
    class process(Inside):  # noqa: N801 - an attribute
        async def resize(self, rows: int, columns: int) -> None:
            await super().resize(24, 80)


class Homebody(Toy):
    @hookimpl
    async def exec(self, id: str, argv: Sequence[str], env: Mapping[str, str], user: tuple[int, int] | None, workdir: str | None,
                   tty: bool) -> Any:
        return await super().exec(id, argv, env, user, None, tty)


class Blind(Toy):
    @hookimpl
    async def exec(self, id: str, argv: Sequence[str], env: Mapping[str, str], user: tuple[int, int] | None, workdir: str | None,
                   tty: bool) -> Any:
        return await super().exec(id, argv, env, user, workdir, False)


class Medium(Toy):
    @hookimpl
    async def exec(self, id: str, argv: Sequence[str], env: Mapping[str, str], user: tuple[int, int] | None, workdir: str | None,
                   tty: bool) -> Any:
        box = self.box(id)
        return await Inside.open(argv, {**self.env(box), **env}, box.path(workdir or box.spec.workdir), tty)


class Opener(Toy):
    @hookimpl
    async def put_archive(self, id: str, path: str, data: AsyncIterator[bytes]) -> None:
        await super().put_archive(id, path, data)
        for place in self.box(id).path(path).rglob("*"):
            place.chmod(0o777)


class Verbose(Toy):
    def root(self, place: Path) -> str:
        return f"./{place.name}"


class Alarmist(Toy):
    @hookimpl
    async def get_archive(self, id: str, path: str) -> AsyncIterator[bytes]:
        try:
            async for piece in super().get_archive(id, path):
                yield piece
        except Failure as failure:
            if id in BOXES:
                raise Failure("runtime-fault", failure.message) from failure
            raise


class Whisper(Port):
    async def read(self, limit: int = 65536) -> bytes:
        return (await super().read(limit)).lower()


class Whisperer(Toy):
    @hookimpl
    async def dial(self, id: str, port: int) -> Any:
        connection = await super().dial(id, port)
        return Whisper(connection.reader, connection.writer)


class Chatter:
    async def read(self, limit: int = 65536) -> bytes:
        return b"502 Bad Gateway"

    async def close(self) -> None:
        """Nothing is open."""


class Gateway(Toy):
    @hookimpl
    async def dial(self, id: str, port: int) -> Any:
        try:
            return await super().dial(id, port)
        except Failure as failure:
            if failure.code == "unavailable":
                return Chatter()
            raise


class Copier(Toy):
    """Every network is a new one."""

    @hookimpl
    async def create_network(self, network: NetworkSpec) -> Network:
        return await super().create_network(replace(network, name=f"{network.name}-{len(NETWORKS)}"))


class Undiscerning(Toy):
    @hookimpl
    async def list_networks(self, labels: Mapping[str, str]) -> Sequence[Network]:
        return await super().list_networks({key: value for key, value in labels.items() if not key.startswith("kit.")})


class Hoarder(Toy):
    @hookimpl
    async def remove_network(self, id: str) -> None:
        await super().remove_network(id)
        self.kept = True

    @hookimpl
    async def list_networks(self, labels: Mapping[str, str]) -> Sequence[Network]:
        kept = [Network("kept", "kept", labels)] if getattr(self, "kept", False) else []
        return [*await super().list_networks(labels), *kept]


class Ruthless(Toy):
    @hookimpl
    async def remove_network(self, id: str) -> None:
        NETWORKS.pop(id, None)


class Forgetter(Toy):
    """Its containers learn no name but their own."""

    def env(self, box: Box) -> dict[str, str]:
        own = {name: address for name, address in box.spec.hosts.items() if name == box.spec.hostname}
        return {**super().env(box), **({"TOY_HOSTS": json.dumps(own)} if box.spec.net else {})}


class Doorless(Toy):
    def env(self, box: Box) -> dict[str, str]:
        return {**super().env(box), "TOY_OPEN": "yes"}


MUTANTS = broken.general(SPEC, Toy) | {
    "test_it_says_what_it_can": Boaster,
    "test_its_image_is_there": Nameless,
    "test_a_missing_image_is_refused": Credulous,
    "test_created_is_not_run": Hasty,
    "test_one_name_is_one_container": Doubler,
    "test_labels_come_back": Unlabelled,
    "test_starting_twice_runs_once": Restarter,
    "test_what_cannot_run_is_refused": Quiet,
    "test_exit_codes_are_true": Liar,
    "test_the_ended_are_listed": Timeless,
    "test_stop_is_polite": Rude,
    "test_stop_kills_in_the_end": Meek,
    "test_stop_leaves_the_ended_alone": Rewriter,
    "test_remove_is_thorough": Fussy,
    "test_strangers_are_refused": Blank,
    "test_refusals_are_sentences": Curt,
    "test_events_tell_of_ends": Gossip,
    "test_many_live_at_once": Muddler,
    "test_another_one_finds_them": Forgetful,
    "test_stats_are_of_the_running": Ghosts,
    "test_it_runs_as_the_user": Rooted,
    "test_environment_and_folder_are_set": Ascii,
    "test_output_is_complete": Translator,
    "test_output_is_told_apart": Mixer,
    "test_logs_go_on_from_any_piece": Skipper,
    "test_following_ends_with_the_container": Impatient,
    "test_processes_end_truly": Forgiving,
    "test_processes_are_told_apart": OneStream,
    "test_processes_are_fed": Choosy,
    "test_processes_take_signals": Plain,
    "test_missing_programs_are_told": Vague,
    "test_processes_have_their_surroundings": Homebody,
    "test_a_terminal_is_one": Blind,
    "test_a_terminal_takes_its_size": Rigid,
    "test_nothing_runs_in_the_ended": Medium,
    "test_files_come_back": Opener,
    "test_an_archive_begins_with_its_name": Verbose,
    "test_missing_files_are_not_found": Alarmist,
    "test_ports_are_reached": Whisperer,
    "test_closed_ports_are_refused": Gateway,
    "test_one_network_name_is_one_network": Copier,
    "test_networks_are_listed_by_labels": Undiscerning,
    "test_removed_networks_are_gone": Hoarder,
    "test_a_network_in_use_stays": Ruthless,
    "test_hosts_reach_each_other_by_name": Forgetter,
    "test_networks_are_private": Doorless,
}


@pytest.mark.parametrize(("law", "mutant"), broken.cases(SPEC, MUTANTS))
def test_a_law_catches_its_mutant(law: str, mutant: Any) -> None:
    broken.breaks_only(SPEC, law, mutant)
    assert not BOXES, "the kit removes what it makes"
    NETWORKS.clear()


def test_good_ones_hold_all() -> None:
    broken.holds_all(SPEC, Toy)
    broken.holds_all(SPEC, "runtime_v10.null")


class Leaky(Toy):
    """It forgets a container and lets it run."""

    left: list[int] = []  # noqa: RUF012 - of all lives

    @hookimpl
    async def remove(self, id: str) -> None:
        if (box := BOXES.pop(id, None)) is not None and box.now.pid is not None:
            self.left.append(box.now.pid)


def test_a_process_that_is_left_behind_is_seen() -> None:
    law = next(law for law in broken.laws(broken.kit_of(SPEC)) if law.name == "test_remove_is_thorough")
    kit = broken.kit_of(SPEC)()
    vars(kit).update(plugin=Leaky, patience_s=0.3)
    try:
        with pytest.raises(AssertionError, match="the process of a removed container to end"):
            asyncio.run(kit.obey(law.body))
    finally:
        for pid in Leaky.left:
            os.killpg(pid, signal.SIGKILL)
