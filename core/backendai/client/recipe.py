"""Image recipes: a folder with a Dockerfile and a ``recipe.toml``; read, checked and packed for a build."""

from __future__ import annotations

import io
import json
import os
import tarfile
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backendai.model.errors import Failure
from backendai.model.image import check_image
from backendai.model.units import parse_bytes

METADATA, DOCKERFILE = "recipe.toml", "Dockerfile"
LABEL = "ai.backendai.recipe."
LEFT_OUT = frozenset({".git", "__pycache__", ".DS_Store"})
BLOCK = 256 * 1024


@dataclass(frozen=True, slots=True)
class Service:
    """Something that the image can serve. argv: how to start it. port: where it listens then; None for no TCP port."""

    name: str
    argv: tuple[str, ...]
    port: int | None = None


@dataclass(frozen=True, slots=True)
class Recipe:
    """What ``recipe.toml`` says. name: the image's reference. minimum: what a session of it needs at least, such as ``mem = "128m"``."""

    folder: Path
    name: str
    title: str = ""
    languages: tuple[str, ...] = ()
    services: tuple[Service, ...] = ()
    minimum: Mapping[str, float | str] = field(default_factory=dict)

    def labels(self) -> dict[str, str]:
        """Return what the image itself will tell of the recipe."""
        services = [{"name": service.name, "argv": service.argv, "port": service.port} for service in self.services]
        said = {"title": self.title, "languages": list(self.languages), "services": services, "minimum": dict(self.minimum)}
        return {LABEL + key: value if isinstance(value, str) else json.dumps(value) for key, value in said.items() if value}


def load_recipe(folder: Path) -> Recipe:
    """Read and check the recipe in *folder*; raise ``Failure('invalid-request')`` that names what is wrong."""
    if not (folder / DOCKERFILE).is_file():
        raise Failure("invalid-request", f"{folder} is not a recipe: it has no {DOCKERFILE}.")
    try:
        given = tomllib.loads((folder / METADATA).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Failure("invalid-request", f"{folder} is not a recipe: it has no {METADATA}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Failure("invalid-request", f"{folder / METADATA} cannot be read: {error}.") from error
    if unknown := sorted(given.keys() - {"name", "title", "languages", "services", "minimum"}):
        raise _wrong(folder, f"nothing is called {unknown[0]}")
    name, title, languages = given.get("name"), given.get("title", ""), given.get("languages", [])
    if not isinstance(name, str):
        raise _wrong(folder, 'it needs a name, such as name = "backendai/python:3.11"')
    if not isinstance(title, str):
        raise _wrong(folder, "title must be a text")
    if not _is_texts(languages):
        raise _wrong(folder, 'languages must be a list of texts, such as ["python 3.11"]')
    return Recipe(folder, check_image(name), title, tuple(languages), _services(folder, given.get("services", {})),
                  _minimum(folder, given.get("minimum", {})))


def pack_recipe(recipe: Recipe) -> Iterator[bytes]:
    """Yield the folder as a tar stream, the same for the same files, with the recipe's labels in its Dockerfile."""
    sink = _Sink()
    with tarfile.open(mode="w|", fileobj=sink, format=tarfile.PAX_FORMAT) as archive:  # type: ignore[call-overload]  # a sink is enough
        for path in _files(recipe.folder):
            info = archive.gettarinfo(path, str(path.relative_to(recipe.folder)))
            info.uid = info.gid = 0
            info.uname = info.gname = ""
            info.mtime = 0
            if info.name == DOCKERFILE:
                text = path.read_bytes() + _label_lines(recipe)
                info.size = len(text)
                archive.addfile(info, io.BytesIO(text))
            elif info.isreg():
                with path.open("rb") as file:
                    archive.addfile(info, file)
            else:
                archive.addfile(info)
            yield from sink.take(BLOCK)
    yield from sink.take(1)


class _Sink:
    """What the archive is written to."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> int:
        self._pieces.append(bytes(data))
        self._size += len(data)
        return len(data)

    def take(self, least: int) -> Iterator[bytes]:
        """Yield what was written, if it is *least* bytes."""
        if self._size >= least:
            data, self._pieces, self._size = b"".join(self._pieces), [], 0
            yield data


def _files(folder: Path) -> Iterator[Path]:
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name in LEFT_OUT:
            continue
        yield Path(entry.path)
        if entry.is_dir(follow_symlinks=False):
            yield from _files(Path(entry.path))


def _label_lines(recipe: Recipe) -> bytes:
    """Return the Dockerfile's lines for the labels; ``$`` would be a variable there."""
    lines = [f"LABEL {key}={json.dumps(value).replace('$', chr(92) + '$')}" for key, value in recipe.labels().items()]
    return ("\n" + "\n".join(lines) + "\n").encode()


def _services(folder: Path, given: Any) -> tuple[Service, ...]:
    if not isinstance(given, dict):
        raise _wrong(folder, "services must be tables, such as [services.jupyter]")
    found = []
    for name, about in given.items():
        argv, port = (about.get("argv"), about.get("port")) if isinstance(about, dict) else (None, None)
        if not argv or not _is_texts(argv):
            raise _wrong(folder, f"the service {name} needs its argv, a list of texts")
        if port is not None and not (isinstance(port, int) and 0 < port < 65536):
            raise _wrong(folder, f"the port of {name} must be between 1 and 65535")
        found.append(Service(name, tuple(argv), port))
    return tuple(found)


def _minimum(folder: Path, given: Any) -> dict[str, float | str]:
    if not isinstance(given, dict):
        raise _wrong(folder, 'minimum must be a table, such as mem = "128m"')
    for slot, amount in given.items():
        try:
            fine = not isinstance(amount, bool) and (isinstance(amount, int | float) or parse_bytes(amount) >= 0)
        except (ValueError, AttributeError):
            fine = False
        if not fine:
            raise _wrong(folder, f'the minimum of {slot} must be a number or a size such as "128m"')
    return given


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _wrong(folder: Path, what: str) -> Failure:
    return Failure("invalid-request", f"{folder / METADATA}: {what}.")
