"""The static init that keeps a container alive and reaps its orphans: built once on this node from a few lines of C."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from pathlib import Path

TARGET = "/.bai/init"
FLAGS = ("-Os", "-static", "-nostdlib", "-ffreestanding", "-fno-builtin", "-fno-stack-protector", "-fno-pie", "-no-pie",
         "-fno-tree-loop-distribute-patterns", "-s")  # the source has its own _start and no libc
COMPILERS = ("cc", "gcc", "clang")
BUILD_S = 60.0


class NoInit(Exception):
    """It cannot be had here; the text says why and how to mend it."""


def source() -> Path:
    """Return where the source is: beside this module in a wheel, in kernels/ in a checkout; raise ``NoInit`` if nowhere."""
    here = Path(__file__).resolve()
    checkout = here.parents[3] / "kernels" / "runtime" / "init" / "init.c"
    for path in (here.with_name("init.c"), checkout):
        if path.is_file():
            return path
    raise NoInit("the source of the static init is not installed; reinstall backendai")


async def build_init(data: Path) -> Path:
    """Return the program for this machine in *data*, built if it is not there yet; raise ``NoInit`` when that fails."""
    code = source()
    name = hashlib.sha256(b"\0".join((code.read_bytes(), " ".join(FLAGS).encode()))).hexdigest()[:16]
    program = data / f"init-{name}"
    if program.is_file():
        return program
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        raise NoInit("there is no C compiler to build the static init with; install gcc")
    fresh = data / f"init-{name}.tmp"
    process = await asyncio.create_subprocess_exec(
        compiler, *FLAGS, "-o", str(fresh), str(code), stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(BUILD_S):
            _, errors = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise NoInit(f"{compiler} did not build the static init within {BUILD_S:g} s") from None
    if process.returncode:
        raise NoInit(f"{compiler} could not build the static init: {errors.decode(errors='replace').strip()[-300:]}")
    fresh.chmod(0o755)
    return fresh.rename(program)
