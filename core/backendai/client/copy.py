"""Files into and out of sessions, named as ``cp -r`` names them."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from backendai.client.tar import pack, root_of, unpack
from backendai.model.errors import Failure

if TYPE_CHECKING:
    from backendai.client.sync import Client

HOME = "/home/work"
Report = Callable[[int], None]


def upload(client: Client, source: Path, session: str, target: str, report: Report | None = None) -> None:
    """Copy *source* to *target* in a session: into it when it is a folder there or ends with a slash, else under its name.

    A link that *source* itself is, is followed. report: told the bytes that went since it was told last. Raise
    ``Failure('not-found')`` when one of both is not there.
    """
    try:
        real = source.resolve(strict=True)
    except (OSError, RuntimeError) as error:  # the latter is a link to itself
        raise Failure("not-found", f"There is no {source} here that you may read.") from error
    path = posixpath.normpath(posixpath.join(HOME, target))
    into = target in ("", ".", "..") or target.endswith(("/", "/.", "/..")) or _is_folder(client, session, path)
    own = source.name if source.name not in ("", "..") else real.name
    folder, name = (path, own) if into else posixpath.split(path)

    def counted() -> Iterator[bytes]:
        for piece in pack(real, name):
            yield piece
            if report is not None:
                report(len(piece))

    client.put_archive(session, folder, counted())


def download(client: Client, session: str, source: str, target: Path, report: Report | None = None) -> None:
    """Copy *source* in a session to *target*: into it when it is a folder, else under its name. report: as for ``upload``."""
    path = posixpath.normpath(posixpath.join(HOME, source))
    if target.is_dir():
        target = target / (posixpath.basename(path) or session)
    elif not target.parent.is_dir():
        raise Failure("not-found", f"There is no folder {target.parent} here.")
    with closing(client.get_archive(session, path)) as pieces:
        unpack(pieces, target, report)


def _is_folder(client: Client, session: str, path: str) -> bool:
    """Tell whether a path in a session is a folder; its archive's first words say so, and no more of it is read."""
    with closing(client.get_archive(session, path)) as pieces:
        try:
            root = root_of(pieces)
        except Failure as failure:
            if failure.code == "not-found":
                return False
            raise
    return root is not None and root.isdir()
