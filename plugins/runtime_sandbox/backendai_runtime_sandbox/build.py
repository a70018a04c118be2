"""The shim: built once on this node from two small C files."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SOURCES = tuple(Path(__file__).with_name("native") / name for name in ("jail.h", "shim.c", "jail.c"))
FLAGS = ("-Os", "-Wall", "-fstack-protector-strong", "-D_FORTIFY_SOURCE=2", "-s")
LINKS = (("-static",), ("-Wl,-z,now",))  # without a static libc the dynamic one will do, bound before we enter a container
COMPILERS: Sequence[str] = ("cc", "gcc", "clang")
BUILD_S = 60.0


_SELF = "/proc/self/exe"  # this interpreter, also where its path is closed to us
_PYTHON = "import sys; sys.path.insert(0, sys.argv.pop(1)); from backendai_runtime_sandbox.shim import main; main(*sys.argv[1:])"
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Shim:
    """How to run the shim. argv: what comes before its own arguments. program: the file to execute."""

    argv: tuple[str, ...]
    program: str

    @property
    def native(self) -> bool:
        return self.program != _SELF


IN_PYTHON = Shim((sys.executable, "-I", "-S", "-c", _PYTHON, str(Path(__file__).parents[1])), _SELF)


async def find_shim(folder: Path) -> Shim:
    """Return the shim: built from C where there is a compiler, else the one in Python."""
    program = await build_shim(folder)
    return IN_PYTHON if program is None else Shim((str(program),), str(program))


async def build_shim(folder: Path) -> Path | None:
    """Return the program for this machine in *folder*, built if it is not there yet; None when it cannot be built."""
    text = b"\0".join(source.read_bytes() for source in SOURCES) + " ".join(FLAGS).encode()
    program = folder / f"sandbox-{hashlib.sha256(text).hexdigest()[:16]}"
    if program.is_file():
        return program
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        return None
    fresh, said = program.with_suffix(".tmp"), b""
    for link in LINKS:
        code, said = await _run(compiler, *FLAGS, *link, "-o", str(fresh), *(str(s) for s in SOURCES if s.suffix == ".c"))
        if code == 0:
            fresh.chmod(0o700)
            return fresh.rename(program)
    log.warning("%s could not build the sandbox's shim: %s", compiler, said.decode(errors="replace").strip()[-500:])
    return None


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
