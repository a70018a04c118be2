"""The laws of what goes in and out of a container: output, processes, files, ports."""

from __future__ import annotations

import asyncio
import io
import random
import tarfile

from backendai.spec.runtime_v10 import SPEC, Runtime
from backendai.testing.containers import HOME, Bench, first, joined, refusal, stream
from backendai.testing.laws import Conformance, NotHere, ensure, law

LINES = 4000
_PYTHON = """
import socket
server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind(("127.0.0.1", PORT))
server.listen()
open("listens", "w").close()
connection, _ = server.accept()
while data := connection.recv(65536):
    connection.sendall(data.upper())
connection.close()
"""
_PERL = """
use Socket;
socket(S, PF_INET, SOCK_STREAM, 0) && setsockopt(S, SOL_SOCKET, SO_REUSEADDR, 1) || die $!;
bind(S, sockaddr_in(PORT, INADDR_LOOPBACK)) && listen(S, 5) || die $!;
open(F, ">listens"); close(F);
accept(C, S);
while (sysread(C, $data, 65536)) { syswrite(C, uc($data)); }
close(C);
"""
LISTENERS = {"python3": ("-c", _PYTHON), "perl": ("-e", _PERL)}  # an image has one or the other


class InsideLaws(Conformance[Runtime]):
    """What a runtime keeps to about what goes in and out of a container."""

    spec = SPEC

    @law()
    async def test_environment_and_folder_are_set(self, bench: Bench) -> None:
        """The command sees the variables that it was given, byte for byte, and begins in the folder that was asked for."""
        odd = "한글 'quoted' \"twice\" $HOME \\ end"
        said, _ = await bench.output(await bench.sh('printf "%s|" "$ODD" "$EMPTY"; touch here', env={"ODD": odd, "EMPTY": ""}))
        ensure(said.decode(errors="replace") == f"{odd}||", f"the variable {odd!r} arrived as {said!r}")
        ensure((bench.folder / "here").exists(), f"it did not begin in {HOME}")

    @law()
    async def test_output_is_complete(self, bench: Bench) -> None:
        """Everything that the command wrote arrives, byte for byte and in order."""
        script = f"printf '\\000\\377\\r\\n'; i=0; while [ $i -lt {LINES} ]; do echo \"line $i\"; i=$((i+1)); done; printf 'no end'"
        wanted = b"\0\xff\r\n" + b"".join(b"line %d\n" % number for number in range(LINES)) + b"no end"
        said, _ = await bench.output(await bench.sh(script))
        ensure(said == wanted, f"of {len(wanted)} bytes {len(said)} arrived, and the {_differ(said, wanted)}th is another")

    @law()
    async def test_output_is_told_apart(self, bench: Bench) -> None:
        """What is written to stdout is told from what is written to stderr."""
        said = await bench.output(await bench.sh("echo out; echo err >&2; echo again"))
        ensure(said == (b"out\nagain\n", b"err\n"), f"out, err and again arrived as {said[0]!r} and {said[1]!r}")

    @law()
    async def test_logs_go_on_from_any_piece(self, bench: Bench) -> None:
        """Asked again from a piece's offset, the output goes on just after that piece."""
        id = await bench.sh("for i in 1 2 3 4; do echo line $i; sleep 0.01; done")
        await bench.ended(id)
        pieces = await bench.chunks(id, follow=False)
        for index, piece in enumerate(pieces[:8]):
            rest, wanted = joined(await bench.chunks(id, piece.next, False)), joined(pieces[index + 1 :])
            ensure(rest == wanted, f"after piece {index} came {rest[0]!r} and not {wanted[0]!r}")

    @law()
    async def test_following_ends_with_the_container(self, bench: Bench) -> None:
        """Who follows the output gets it all and comes to an end with the container; who does not follow waits for nobody."""
        if "commands" in bench.can.missing:
            await bench.chunks(await bench.run("true"))
            return
        id = await bench.sh("echo early; while [ ! -e go ]; do sleep 0.02; done; echo late")
        await bench.until(lambda: _has(bench, id, b"early\n"), "the first line of its output")
        follower = asyncio.create_task(bench.output(id))
        await asyncio.sleep(0.02)
        (bench.folder / "go").touch()
        said = (await follower)[0]
        ensure(said == b"early\nlate\n", f"following gave {said!r}")

    @law()
    async def test_processes_end_truly(self, bench: Bench) -> None:
        """A process inside ends with its own status."""
        id = await bench.idle()
        for code in (0, 7):
            found, _, _ = await bench.inside(id, "sh", "-c", f"exit {code}")
            ensure(found == code, f"exit {code} was told as {found}")

    @law()
    async def test_processes_are_told_apart(self, bench: Bench) -> None:
        """What a process inside writes to stdout is told from what it writes to stderr."""
        _, out, err = await bench.inside(await bench.idle(), "sh", "-c", "echo out; echo err >&2")
        ensure((out, err) == (b"out\n", b"err\n"), f"out and err arrived as {out!r} and {err!r}")

    @law()
    async def test_processes_are_fed(self, bench: Bench) -> None:
        """What is sent to a process inside arrives byte for byte, and then its end."""
        data = random.Random(1).randbytes(300_000)
        code, out, _ = await bench.inside(await bench.idle(), "cat", stdin=data)
        ensure(code == 0 and out == data, f"of {len(data)} bytes {len(out)} came back, and the {_differ(out, data)}th is another")

    @law()
    async def test_processes_take_signals(self, bench: Bench) -> None:
        """A signal reaches a process inside; a death by signal n is told as 128 + n."""
        process = await bench.open(await bench.idle(), "sleep", "1000")
        try:
            await asyncio.sleep(0.05)
            await process.signal("SIGTERM")
            async with asyncio.timeout(bench.patience_s):
                code = await process.exit_code()
        finally:
            await process.close()
        ensure(code == 143, f"ended by SIGTERM it was told as {code}")

    @law()
    async def test_missing_programs_are_told(self, bench: Bench) -> None:
        """A program that is not there ends with 126 or 127, or is refused."""
        id = await bench.idle()
        found: list[int] = []

        async def run() -> None:
            found.append((await bench.inside(id, "/no/such/program"))[0])

        await refusal(run())
        ensure(not found or found[0] in (126, 127), f"a program that is not there was told as {found}")

    @law()
    async def test_processes_have_their_surroundings(self, bench: Bench) -> None:
        """A process inside sees the variables and begins in the folder that were asked for."""
        id = await bench.idle()
        _, out, _ = await bench.inside(id, "sh", "-c", 'echo "$WORD"; pwd -P', env={"WORD": "a b"}, workdir="/")
        ensure(out == b"a b\n/\n", f"asked for WORD='a b' and / it found {out!r}")

    @law()
    async def test_a_terminal_is_one(self, bench: Bench) -> None:
        """A process with a terminal has one for its input and its output, which is all stdout."""
        _, out, err = await bench.inside(await bench.idle(), "sh", "-c", "test -t 0 && test -t 1 && echo yes; echo err >&2", tty=True)
        ensure(b"yes" in out, f"what should be a terminal is none: {out!r}")
        ensure(b"err" in out and not err, f"with a terminal, stderr gave {err!r} and stdout {out!r}")

    @law()
    async def test_a_terminal_takes_its_size(self, bench: Bench) -> None:
        """A process with a terminal sees the size that it was told last."""
        id = await bench.idle()
        if (await bench.inside(id, "sh", "-c", "command -v stty"))[0]:
            raise NotHere("the image has no stty to ask with")
        process = await bench.open(id, "sh", "-c", "test -t 0 || echo none; read line; stty size", tty=True)
        said = b""
        try:
            await process.resize(31, 97)
            await process.write(b"\n")
            async with asyncio.timeout(bench.patience_s):
                while (piece := await process.read()) is not None:
                    said += piece[1]
        finally:
            await process.close()
        if b"none" in said:
            raise NotHere("test_a_terminal_is_one is broken")
        ensure(b"31 97" in said, f"told 31 rows and 97 columns it sees {said.strip()!r}")

    @law()
    async def test_nothing_runs_in_the_ended(self, bench: Bench) -> None:
        """A process inside a container that has ended is refused."""
        id = await bench.run("true")
        await bench.ended(id)
        ensure(await refusal(bench.runtime.exec(id, ("true",), {}, None, None, False)), "a process was run in an ended container")

    @law()
    async def test_files_come_back(self, bench: Bench) -> None:
        """What is unpacked into a container comes back as it was: names, contents and permissions."""
        id = await bench.idle()
        wanted = {"kit": (None, 0o755), "kit/한글 name": (b"\0\xffdata", 0o640), "kit/run.sh": (b"#!/bin/sh\n", 0o755),
                  "kit/empty": (b"", 0o644)}
        await bench.runtime.put_archive(id, HOME, stream(make_tar(wanted)))
        members = await bench.fetch(id, f"{HOME}/kit")
        root = members[0][0].name if members else ""  # a law of its own looks at that
        found = {f"kit{member.name.removeprefix(root)}".rstrip("/"): (data if member.isfile() else None, member.mode & 0o777)
                 for member, data in members}
        ensure(found == wanted, f"{wanted} came back as {found}")

    @law()
    async def test_an_archive_begins_with_its_name(self, bench: Bench) -> None:
        """The root of an archive is the last part of the path that was asked for."""
        id = await bench.idle()
        await bench.runtime.put_archive(id, HOME, stream(make_tar({"one": (b"1", 0o644)})))
        members = await bench.fetch(id, f"{HOME}/one")
        names = [member.name for member, _ in members]
        ensure(names == ["one"], f"the archive of {HOME}/one holds {names}")

    @law()
    async def test_missing_files_are_not_found(self, bench: Bench) -> None:
        """A path that is not there is refused as not-found, on the way out and on the way in."""
        id = await bench.idle()
        calls = {"get_archive": first(bench.runtime.get_archive(id, f"{HOME}/nothing")),
                 "put_archive": bench.runtime.put_archive(id, f"{HOME}/nothing", stream(make_tar({"one": (b"1", 0o644)})))}
        said = {name: await refusal(call) for name, call in calls.items()}
        for name, failure in said.items():
            if failure is not None and failure.code == "unsupported":
                continue  # it says that it has no files at all
            ensure(failure is not None and failure.code == "not-found", f"{name} says {failure.code if failure else 'nothing'} about it")

    @law()
    async def test_ports_are_reached(self, bench: Bench) -> None:
        """A port inside is reached, bytes go both ways, and the end of one side reaches the other."""
        id, port = await bench.idle(), random.randint(10000, 30000)  # below those that systems give to whoever asks for any
        programs = [name for name in LISTENERS if (await bench.inside(id, "sh", "-c", f"command -v {name}"))[0] == 0]
        if not programs:
            raise NotHere(f"the image has none of {', '.join(LISTENERS)} to listen with")
        flag, script = LISTENERS[programs[0]]
        server = await bench.open(id, programs[0], flag, script.replace("PORT", str(port)))
        try:
            await bench.until(lambda: _listens(bench), "a server inside to listen")
            connection = await bench.runtime.dial(id, port)
            try:
                await connection.write(b"hello")
                await connection.end_output()
                answer = b""
                async with asyncio.timeout(bench.patience_s):
                    while data := await connection.read():
                        answer += data
            finally:
                await connection.close()
        finally:
            await server.close()
        ensure(answer == b"HELLO", f"hello was answered by {answer!r}, and should be by HELLO")

    @law()
    async def test_closed_ports_are_refused(self, bench: Bench) -> None:
        """A port on which nobody listens is refused, or ends at once."""
        id = await bench.idle()
        failure, answer = None, b""

        async def ask() -> None:
            nonlocal answer
            connection = await bench.runtime.dial(id, 1)
            try:
                async with asyncio.timeout(bench.patience_s):
                    answer = await connection.read() or b"an end"
            finally:
                await connection.close()

        failure = await refusal(ask())
        ensure(failure is not None or answer == b"an end", f"port 1, on which nobody listens, said {answer!r}")
        if failure is not None and failure.code == "unsupported":
            raise NotHere(failure.message)


async def _has(bench: Bench, id: str, text: bytes) -> bool:
    return (await bench.output(id, follow=False))[0] == text


async def _listens(bench: Bench) -> bool:
    return (bench.folder / "listens").exists()


def make_tar(files: dict[str, tuple[bytes | None, int]]) -> bytes:
    """Return a tar archive. files: content, None for a folder, and permissions by name."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, (content, mode) in files.items():
            member = tarfile.TarInfo(name)
            member.mode, member.size, member.type = mode, len(content or b""), tarfile.REGTYPE if content is not None else tarfile.DIRTYPE
            tar.addfile(member, io.BytesIO(content or b""))
    return data.getvalue()


def _differ(one: bytes, other: bytes) -> int:
    """Return where two byte strings part."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
