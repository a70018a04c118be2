"""The configuration file of a role, TOML: tables ``[manager]``, ``[agent]`` and ``[plugins]``."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from backendai.model.errors import Failure
from backendai.model.slots import parse_slots
from backendai.plugin.host import Settings

T = TypeVar("T")
HOST, PORT = "127.0.0.1", 8080
LISTEN = f"{HOST}:{PORT}"


@dataclass(frozen=True, slots=True)
class File:
    """What stands in the file; empty tables where there is no file."""

    path: Path | None = None
    manager: Mapping[str, Any] = field(default_factory=dict)
    agent: Mapping[str, Any] = field(default_factory=dict)
    plugins: Mapping[str, Any] = field(default_factory=dict)


def read_file(path: Path | None) -> File:
    """Read the file; raise ``Failure('invalid-request')`` that names what is wrong in it."""
    if path is None:
        return File()
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Failure("invalid-request", f"{path} cannot be read: {error}.") from error
    tables = {each.name for each in fields(File)} - {"path"}
    if unknown := sorted(given.keys() - tables):
        raise Failure("invalid-request", f"{path}: nothing is called [{unknown[0]}]; there are {', '.join(sorted(tables))}.")
    if wrong := sorted(name for name, table in given.items() if not isinstance(table, dict)):
        raise Failure("invalid-request", f"{path}: {wrong[0]} must be a table, [{wrong[0]}].")
    return File(path, **given)


def shape(file: File, table: str, type: type[T], fixed: Mapping[str, Any]) -> T:
    """Return a role's configuration. fixed: what does not come from the file, because the command line says it."""
    given = dict(getattr(file, table))
    known = {each.name for each in fields(type)} - {"plugins", "data"}  # type: ignore[arg-type]  # a dataclass
    if unknown := sorted(given.keys() - known):
        raise Failure("invalid-request", f"{file.path}: [{table}] has no {unknown[0]}; it has {', '.join(sorted(known))}.")
    if isinstance(given.get("default_slots"), dict):
        try:
            given["default_slots"] = parse_slots(given["default_slots"])
        except Failure as failure:
            raise Failure("invalid-request", f"{file.path}: [{table}] default_slots: {failure.message}") from failure
    said = {name: value for name, value in fixed.items() if value is not None}
    return _convert(file, table, {**given, **said, "plugins": plugins(file)}, type)


def plugins(file: File) -> Settings:
    """Return the plugins' settings: ``disabled``, ``required``, ``order``, and a table of options by plugin id."""
    given = dict(file.plugins)
    lists: dict[str, Any] = {name: given.pop(name) for name in ("disabled", "required", "order") if name in given}
    if wrong := [name for name, options in given.items() if not isinstance(options, dict)]:
        raise Failure("invalid-request", f"{file.path}: [plugins] {wrong[0]} is neither disabled, required, order nor a plugin's table.")
    return _convert(file, "plugins", {**lists, "options": given}, Settings)


def _convert(file: File, table: str, given: Mapping[str, Any], type: type[T]) -> T:
    try:
        return msgspec.convert(given, type, dec_hook=_read)
    except msgspec.ValidationError as error:
        raise Failure("invalid-request", f"{file.path or 'the command line'}: [{table}]: {error}.") from error


def _read(type: type, value: Any) -> Any:
    if type is Path:
        return Path(value)
    raise NotImplementedError(type)


def default_data() -> Path:
    """Return where a platform keeps its things when nobody says where: one place for root, one for each user."""
    if os.geteuid() == 0:
        return Path("/var/lib/backendai")
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "backendai"


def where(text: str | None, file: File) -> dict[str, Any]:
    """Return host and port to listen at: what the command line says, else what the file says, else the usual ones."""
    if text is None:
        return {"host": HOST, "port": PORT} | {name: file.manager[name] for name in ("host", "port") if name in file.manager}
    return dict(zip(("host", "port"), read_listen(text), strict=True))


def read_listen(text: str) -> tuple[str, int]:
    """Read ``HOST:PORT``, ``:PORT`` for every address of the machine, or ``HOST``; an IPv6 address stands in brackets."""
    found = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([^\s:\[\]/]*))(?::([0-9]{1,5}))?", text)
    if found is None or not text or int(found[3] or 0) > 65535:
        raise Failure("invalid-request", f"--listen {text}: write HOST:PORT, such as {LISTEN} or [::1]:0; port 0 is any free one.")
    return found[1] or found[2] or "0.0.0.0", PORT if found[3] is None else int(found[3])
