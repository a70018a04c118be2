"""The shim: built once on this node from two small C files."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from pathlib import Path

from backendai.model.errors import Failure

SOURCES = tuple(Path(__file__).with_name("native") / name for name in ("jail.h", "shim.c", "jail.c"))
FLAGS = ("-Os", "-Wall", "-fstack-protector-strong", "-D_FORTIFY_SOURCE=2", "-s")
LINKS = (("-static",), ("-Wl,-z,now",))  # without a static libc the dynamic one will do, bound before we enter a container
COMPILERS = ("cc", "gcc", "clang")
BUILD_S = 60.0


async def build_shim(folder: Path) -> Path:
    """Return the program for this machine in *folder*, built if it is not there yet; raise ``Failure('unavailable')`` when that fails."""
    text = b"\0".join(source.read_bytes() for source in SOURCES) + " ".join(FLAGS).encode()
    program = folder / f"sandbox-{hashlib.sha256(text).hexdigest()[:16]}"
    if program.is_file():
        return program
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        raise Failure("unavailable", "The sandbox runtime needs a C compiler once, to build its shim; install one, such as by "
                                     "`apt-get install gcc libc6-dev`.")
    fresh, said = program.with_suffix(".tmp"), b""
    for link in LINKS:
        code, said = await _run(compiler, *FLAGS, *link, "-o", str(fresh), *(str(s) for s in SOURCES if s.suffix == ".c"))
        if code == 0:
            fresh.chmod(0o700)
            return fresh.rename(program)
    raise Failure("unavailable", f"{compiler} could not build the sandbox's shim; install the C library's headers, such as by "
                                 "`apt-get install gcc libc6-dev`.", detail=said.decode(errors="replace")[-2000:])


async def _run(*argv: str) -> tuple[int, bytes]:
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(BUILD_S):
            _, said = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return 1, b"it took too long"
    return process.returncode or 0, said
