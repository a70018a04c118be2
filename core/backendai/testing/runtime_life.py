"""The laws of a container's life: made, run, stopped, ended, listed, removed."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import Any, cast

from backendai.spec.runtime_v10 import FEATURES, SPEC, Capabilities, Container, ContainerState, Image, Progress, Runtime
from backendai.testing.containers import LABEL, Bench, first, refusal, stream
from backendai.testing.laws import Conformance, NotHere, Weight, ensure, law

NOWHERE = "backendai.invalid/no-such-image:none"  # names below .invalid never exist (RFC 2606)
NOBODY = "bai-kit-no-such-container"
GRACE_S = 0.2
MOST = 20  # containers at once


class LifeLaws(Conformance[Runtime]):
    """What a runtime keeps to from a container's creation to its removal."""

    spec = SPEC

    @law()
    async def test_it_says_what_it_can(self, bench: Bench) -> None:
        """Its capabilities name the engine and an image, known features only, and a reason for what is missing."""
        can: Any = bench.can
        ensure(isinstance(can, Capabilities), f"probe() returned {can!r}")
        ensure(can.engine and can.default_image, "it names no engine or no default image")
        ensure(can.features <= FEATURES, f"it claims {', '.join(sorted(can.features - FEATURES))}, which are no features")
        ensure(all(why.strip() for why in can.missing.values()), f"it lacks {', '.join(can.missing)} and does not say why")
        ensure(can.parallel_starts >= 1, f"it would start {can.parallel_starts} containers at once")

    @law()
    async def test_its_image_is_there(self, bench: Bench) -> None:
        """Its image can be made sure of, again and again, and is told by a name and an id."""
        said: list[Progress] = []
        for _ in range(2):
            image: Any = await bench.runtime.ensure_image(bench.image, said.append)
            ensure(isinstance(image, Image) and image.name and image.id, f"ensure_image() returned {image!r}")
        ensure(all(isinstance(word, Progress) for word in said), "it reported something that is no Progress")

    @law()
    async def test_a_missing_image_is_refused(self, bench: Bench) -> None:
        """An image that is nowhere is refused as bad-image."""
        failure = await refusal(bench.runtime.ensure_image(NOWHERE, lambda progress: None))
        if failure is not None and failure.code == "unavailable":
            raise NotHere(f"it cannot tell: {failure.message}")
        ensure(failure is not None and failure.code == "bad-image", f"it says {failure.code if failure else 'nothing'} about {NOWHERE}")

    @law()
    async def test_created_is_not_run(self, bench: Bench) -> None:
        """A created container is listed and does not run."""
        now = await bench.get(await bench.runtime.create(bench.spec("true")))
        ensure(now.state is ContainerState.CREATED, f"a created container is {now.state}")

    @law()
    async def test_one_name_is_one_container(self, bench: Bench) -> None:
        """Creating a container whose name is there returns it."""
        spec = bench.spec("true")
        first, second = [await bench.runtime.create(spec) for _ in range(2)]
        count = len(await bench.runtime.list(bench.labels))
        ensure(first == second and count == 1, f"created twice, there are {count} containers, {first} and {second}")

    @law()
    async def test_labels_come_back(self, bench: Bench) -> None:
        """Labels come back as they were given, and a list by labels holds those that bear all of them."""
        labels = {**bench.labels, "kit.odd": "한글 = \"quoted\", and: more", "kit.empty": ""}
        id = await bench.runtime.create(bench.spec("true", labels=labels))
        other = await bench.runtime.create(bench.spec("true", labels={**bench.labels, "kit.empty": "not"}))
        now = await bench.get(id)
        ensure(labels.items() <= now.labels.items(), f"the labels {labels} came back as {dict(now.labels)}")
        found = {one.id for one in await bench.runtime.list({LABEL: bench.labels[LABEL], "kit.empty": ""})}
        ensure(found == {id}, f"asked for one it listed {'another, too' if other in found else 'none'}")

    @law()
    async def test_starting_twice_runs_once(self, bench: Bench) -> None:
        """Starting a container that runs, or that has ended, does nothing."""
        id = await bench.sh("echo once >> ran; sleep 0.05")
        await bench.runtime.start(id)
        await bench.ended(id)
        await bench.runtime.start(id)
        await asyncio.sleep(0.05)
        ensure((await bench.get(id)).state is ContainerState.EXITED, "an ended container was started again")
        ran = (bench.folder / "ran").read_text()
        ensure(ran == "once\n", f"it ran {ran.count('once')} times")

    @law()
    async def test_what_cannot_run_is_refused(self, bench: Bench) -> None:
        """Starting a program that is not there is refused as runtime-fault."""
        bench.need("commands")
        failure = await refusal(bench.run("/no/such/program"))
        ensure(failure is not None and failure.code == "runtime-fault", f"start() says {failure.code if failure else 'nothing'} about it")

    @law()
    async def test_exit_codes_are_true(self, bench: Bench) -> None:
        """A container ends with the status of its command."""
        for code in (0, 7, 255):
            now = await bench.ended(await bench.sh(f"exit {code}"))
            ensure(now.exit_code == code, f"exit {code} was told as {now.exit_code}")

    @law()
    async def test_the_ended_are_listed(self, bench: Bench) -> None:
        """A container that has ended is listed, with when it began and when it ended, until it is removed."""
        now = await bench.ended(await bench.run("true"))
        ensure(now.started_at is not None and now.ended_at is not None, f"it began at {now.started_at} and ended at {now.ended_at}")
        ensure((now.started_at or 0) <= (now.ended_at or 0), f"it ended {(now.started_at or 0) - (now.ended_at or 0)} s before it began")

    @law()
    async def test_stop_is_polite(self, bench: Bench) -> None:
        """Stopping sends the signal first and waits: a container that listens ends in its own way."""
        bench.need("commands")
        id = await bench.idle()
        await bench.runtime.stop(id, "SIGTERM", bench.patience_s)
        code = (await bench.ended(id)).exit_code
        ensure(code == 9, f"a container that ends with 9 on SIGTERM ended with {code}")

    @law()
    async def test_stop_kills_in_the_end(self, bench: Bench) -> None:
        """A container that does not listen is killed after the grace, has ended when stop returns, and ended with 137."""
        bench.need("commands")
        id = await bench.sh("trap '' TERM; touch ready; while :; do sleep 0.05; done")
        await bench.until(lambda: _is_there(bench.folder / "ready"), "the container to begin")
        await bench.runtime.stop(id, "SIGTERM", GRACE_S)
        now = await bench.get(id)
        ensure(now.state is ContainerState.EXITED, f"after stop() it is {now.state}")
        ensure(now.exit_code == 137, f"killed it ended with {now.exit_code}")

    @law()
    async def test_stop_leaves_the_ended_alone(self, bench: Bench) -> None:
        """Stopping what has ended, or is not there, does nothing."""
        id = await bench.run("true")
        before = await bench.ended(id)
        await bench.runtime.stop(id, "SIGTERM", GRACE_S)
        ensure(await bench.get(id) == before, "an ended container changed when it was stopped")
        await bench.runtime.stop(NOBODY, "SIGTERM", GRACE_S)

    @law()
    async def test_remove_is_thorough(self, bench: Bench) -> None:
        """Removing kills what runs, leaves nothing that is listed or runs, and may be repeated."""
        id = await bench.idle()
        pid = (await bench.get(id)).pid
        await bench.runtime.remove(id)
        ensure(await bench.find(id) is None, "a removed container is still listed")
        if pid is not None and Path("/proc/self").exists():  # noqa: ASYNC240 - /proc does not block
            await bench.until(lambda: _is_gone(pid), "the process of a removed container to end")
        await bench.runtime.remove(id)

    @law()
    async def test_strangers_are_refused(self, bench: Bench) -> None:
        """What is asked of a container that is not there is refused, as a Failure."""
        runtime = bench.runtime
        calls = {
            "start": runtime.start(NOBODY),
            "exec": runtime.exec(NOBODY, ("true",), {}, None, None, False),
            "logs": first(runtime.logs(NOBODY, 0, False)),
            "get_archive": first(runtime.get_archive(NOBODY, "/etc")),
            "put_archive": runtime.put_archive(NOBODY, "/tmp", stream()),
            "dial": runtime.dial(NOBODY, 1),
        }
        said = {name: await refusal(call) for name, call in calls.items()}
        silent = [name for name, failure in said.items() if failure is None]
        ensure(not silent, f"{', '.join(silent)} said nothing about a container that is not there")

    @law(Weight.RECOMMENDED)
    async def test_refusals_are_sentences(self, bench: Bench) -> None:
        """A refusal is a sentence that a user can read."""
        runtime = bench.runtime
        for call in (runtime.start(NOBODY), runtime.ensure_image(NOWHERE, lambda progress: None)):
            if (failure := await refusal(call)) is not None:
                text = failure.message.strip()
                ensure(" " in text and text.endswith((".", "!", "?", ")", "`")), f"{text!r} is no sentence")

    @law()
    async def test_events_tell_of_ends(self, bench: Bench) -> None:
        """Who listens hears of the end of a container that bears the labels, and of no other's."""
        other = await bench.runtime.create(bench.spec("true", labels={LABEL: bench.labels[LABEL] + "-other"}))
        heard = asyncio.Queue[Any]()

        async def listen() -> None:
            async with aclosing(cast(Any, bench.runtime.events(bench.labels))) as events:
                async for event in events:
                    heard.put_nowait(event)

        listener = asyncio.create_task(listen())
        try:
            await asyncio.sleep(0.1)  # events that came before one listens are lost by nature
            await bench.runtime.start(other)
            id = await bench.idle()
            await bench.runtime.stop(id, "SIGKILL", GRACE_S)
            told: set[str] = set()

            async def ended() -> bool:
                while not heard.empty():
                    event = heard.get_nowait()
                    told.add(event.container)
                    if (event.container, event.state) == (id, ContainerState.EXITED):
                        return True
                return False

            await bench.until(ended, "the event of an end")
            ensure(told == {id}, "it told of a container without the labels")
        finally:
            listener.cancel()
            await asyncio.wait([listener])
            await bench.runtime.remove(other)

    @law()
    async def test_many_live_at_once(self, bench: Bench) -> None:
        """As many containers as it says can be started at once, and each ends with its own status."""
        count = min(bench.can.parallel_starts, MOST)
        ids = await asyncio.gather(*(bench.sh(f"exit {number}") for number in range(count)))
        codes = [(await bench.ended(id)).exit_code for id in ids]
        ensure(codes == list(range(count)), f"the statuses 0 to {count - 1} came back as {codes}")

    @law()
    async def test_another_one_finds_them(self, bench: Bench) -> None:
        """Where containers survive, a runtime that starts anew finds them, those that run and those that have ended."""
        bench.need("survives")
        runs, ended = await bench.idle(), await bench.sh("exit 5")
        await bench.ended(ended)
        async with self.started() as again:
            now: list[Container] = [await bench.get(id, again) for id in (runs, ended)]
            ensure([one.state for one in now] == [ContainerState.RUNNING, ContainerState.EXITED], "it finds them in other states")
            ensure(now[1].exit_code == 5, f"an exit status of 5 became {now[1].exit_code}")
            await again.stop(runs, "SIGTERM", bench.patience_s)
            await bench.ended(runs, again)

    @law()
    async def test_stats_are_of_the_running(self, bench: Bench) -> None:
        """Use is told of what runs and of nothing else; it is not negative, and processor time only grows."""
        runs, ended = await bench.idle(), await bench.run("true")
        await bench.ended(ended)
        first, second = [await bench.runtime.stats([runs, ended, NOBODY]) for _ in range(2)]
        ensure(set(first) == set(second) == {runs}, f"of one that runs, one that ended and a stranger it told of {len(first)}")
        values = [getattr(first[runs], name) for name in type(first[runs]).__slots__]
        ensure(all(value is None or value >= 0 for value in values), f"it told of {first[runs]}")
        ensure((second[runs].cpu_s or 0) >= (first[runs].cpu_s or 0), "processor time went back")

    @law()
    async def test_it_runs_as_the_user(self, bench: Bench) -> None:
        """Where it can choose, the command runs as the user and the group that were asked for."""
        bench.need("commands")
        bench.need("user")
        said, _ = await bench.output(await bench.sh("id -u; id -g", user=(1234, 1235)))
        ensure(said == b"1234\n1235\n", f"asked for 1234:1235 it ran as {said!r}")


async def _is_there(path: Path) -> bool:
    return path.exists()  # noqa: ASYNC240 - one look at a local folder


async def _is_gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]  # noqa: ASYNC240 - /proc does not block
    except OSError:
        return True
    return state in "ZX"  # it only waits for its parent to look
