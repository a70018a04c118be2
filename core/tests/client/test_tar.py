"""Tar streams out of files and back, and what an archive may not do."""

from __future__ import annotations

import io
import os
import socket
import stat
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from backendai.client import copy
from backendai.client.tar import BLOCK, pack, root_of, unpack
from backendai.model.errors import Failure
from hypothesis import given
from hypothesis import strategies as st

NAME = st.text(st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1, max_size=40).filter(
    lambda name: name not in (".", "..") and len(name.encode()) < 120)
CONTENT = st.binary(max_size=2000).map(lambda data: data * 50)
TREE = st.recursive(CONTENT, lambda inside: st.dictionaries(NAME, inside, max_size=4), max_leaves=12)


def plant(path: Path, what: object) -> None:
    """Make a file of bytes, or a folder of a dictionary."""
    if isinstance(what, bytes):
        path.write_bytes(what)
        return
    assert isinstance(what, Mapping)
    path.mkdir()
    for name, inside in what.items():
        plant(path / name, inside)


def harvest(path: Path) -> object:
    return path.read_bytes() if path.is_file() else {inside.name: harvest(inside) for inside in path.iterdir()}


def cut(pieces: Iterator[bytes], size: int) -> Iterator[bytes]:
    """Yield the same bytes in pieces of another size."""
    data = b"".join(pieces)
    return (data[at : at + size] for at in range(0, len(data), size))


@given(tree=TREE, name=NAME, root=NAME, size=st.integers(1, 3000))
def test_what_is_packed_is_unpacked(tree: object, name: str, root: str, size: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "source"), Path(folder, "to")
        target.mkdir()
        plant(source, tree)
        unpack(cut(pack(source, root), size), target / name)
        assert harvest(target) == {name: tree}


def test_a_large_file_comes_in_pieces_and_is_reported(tmp_path: Path) -> None:
    data = os.urandom(5 * BLOCK + 7)
    (tmp_path / "in").write_bytes(data)
    pieces = list(pack(tmp_path / "in", "in"))
    assert len(pieces) > 5 and max(map(len, pieces)) <= BLOCK
    reported: list[int] = []
    unpack(iter(pieces), tmp_path / "out", reported.append)
    assert (tmp_path / "out").read_bytes() == data
    assert sum(reported) == sum(map(len, pieces))


def test_links_modes_and_names_without_an_encoding_are_kept(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / "deep" / "run.sh").write_text("#!")
    (tree / "deep" / "run.sh").chmod(0o755)
    (tree / "soft").symlink_to("deep/run.sh")
    (tree / "dangling").symlink_to("nowhere")
    (tree / "hard").hardlink_to(tree / "deep" / "run.sh")
    odd = os.fsdecode(b"odd\xff")
    (tree / odd).write_text("x")
    unpack(pack(tree, "any"), tmp_path / "back")
    back = tmp_path / "back"
    assert (back / "soft").readlink() == Path("deep/run.sh")
    assert (back / "dangling").readlink() == Path("nowhere")
    assert (back / "hard").samefile(back / "deep" / "run.sh")
    assert stat.S_IMODE((back / "deep" / "run.sh").stat().st_mode) == 0o755
    assert (back / odd).read_text() == "x"


def test_nobody_s_ids_are_packed_and_what_is_no_file_is_left_out(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_text("x")
    os.mkfifo(tree / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tree / "socket"))
        with tarfile.open(fileobj=io.BytesIO(b"".join(pack(tree, "r")))) as archive:
            members = archive.getmembers()
    assert sorted(member.name for member in members) == ["r", "r/file"]
    assert {(member.uid, member.gid, member.uname, member.gname) for member in members} == {(0, 0, "", "")}


def test_leaving_a_pack_early_ends_its_thread(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(20 * BLOCK))
    stream = pack(tmp_path / "big", "big")
    next(stream)
    packers = [thread for thread in threading.enumerate() if thread.name == "pack"]
    stream.close()  # type: ignore[attr-defined]  # a generator
    for thread in packers:
        thread.join(10)
    assert packers and not any(thread.is_alive() for thread in packers)


def test_what_cannot_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    real = tarfile.bltn_open

    def refuse(name: str, *more: object) -> object:
        if name.endswith("file"):
            raise PermissionError(13, "Permission denied", name)
        return real(name, *more)

    monkeypatch.setattr(tarfile, "bltn_open", refuse)  # root may read everything
    with pytest.raises(Failure) as refused:
        list(pack(tmp_path, "r"))
    assert (refused.value.code, str(tmp_path / "file") in refused.value.message) == ("invalid-request", True)


def test_a_file_that_shrinks_meanwhile_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x" * 100)
    real = tarfile.TarFile.gettarinfo

    def larger(*given: object, **more: object) -> tarfile.TarInfo:
        info = real(*given, **more)  # type: ignore[arg-type]  # as it is
        info.size += 1000
        return info

    monkeypatch.setattr(tarfile.TarFile, "gettarinfo", larger)
    with pytest.raises(Failure) as refused:
        list(pack(tmp_path / "file", "r"))
    assert "None" not in refused.value.message and "file" in refused.value.message


# --- what comes from a session may be anything ---


def archive(*members: tuple[str, object]) -> Iterator[bytes]:
    """Yield a tar. members: name, and bytes of a file, None for a folder, or type and target of a link."""
    sink = io.BytesIO()
    with tarfile.open(mode="w", fileobj=sink) as tar:
        for name, what in members:
            info = tarfile.TarInfo(name)
            if isinstance(what, bytes):
                info.size = len(what)
                tar.addfile(info, io.BytesIO(what))
                continue
            info.type, info.linkname = (tarfile.DIRTYPE, "") if what is None else what  # type: ignore[misc]  # else a pair
            tar.addfile(info)
    return iter([sink.getvalue()])


SYM, HARD = tarfile.SYMTYPE, tarfile.LNKTYPE
UNSAFE: Mapping[str, tuple[tuple[str, object], ...]] = {
    "a path upwards": (("r", None), ("r/../../out", b"bad")),
    "a link upwards, and a file through it": (("r", None), ("r/up", (SYM, "../..")), ("r/up/out", b"bad")),
    "a link to an absolute path": (("r", None), ("r/up", (SYM, "/etc")), ("r/up/out", b"bad")),
    "a root that is a link to a neighbour, and a file through it": (("r", (SYM, "neighbour")), ("r/out", b"bad")),
    "a root that is a link to where it stands": (("r", (SYM, ".")), ("r/out", b"bad")),
    "a root that is a link upwards": (("r", (SYM, "..")),),
    "a root that is a file, and one more": (("r", b"fine"), ("r2", b"bad")),
    "a hard link outwards": (("r", None), ("r/h", (HARD, "r/../../neighbour/kept")), ("r/h", b"bad")),
    "a device": (("r", None), ("r/null", (tarfile.CHRTYPE, ""))),
    "a pipe": (("r", (tarfile.FIFOTYPE, "")),),
}


@pytest.mark.parametrize("members", UNSAFE.values(), ids=UNSAFE)
def test_nothing_is_written_outside(tmp_path: Path, members: tuple[tuple[str, object], ...]) -> None:
    home = tmp_path / "home"
    (home / "neighbour").mkdir(parents=True)
    (home / "neighbour" / "kept").write_text("kept")
    with pytest.raises(Failure) as refused:
        unpack(archive(*members), home / "target")
    assert refused.value.code == "invalid-request" and "safe" in refused.value.message
    assert harvest(home / "neighbour") == {"kept": b"kept"}
    assert {path.name for path in tmp_path.iterdir()} == {"home"}
    assert {path.name for path in home.iterdir()} <= {"neighbour", "target"}


def test_no_owner_and_no_dangerous_mode_is_taken_over(tmp_path: Path) -> None:
    sink = io.BytesIO()
    with tarfile.open(mode="w", fileobj=sink) as tar:
        info = tarfile.TarInfo("su")
        info.uid, info.mode, info.size = 12345, 0o6777, 1
        tar.addfile(info, io.BytesIO(b"x"))
    unpack(iter([sink.getvalue()]), tmp_path / "su")
    found = (tmp_path / "su").stat()
    assert found.st_uid == os.getuid() and stat.S_IMODE(found.st_mode) == 0o755


@pytest.mark.parametrize("keep", [0, 100, 5000])
def test_an_archive_that_breaks_off_is_said(tmp_path: Path, keep: int) -> None:
    data = b"".join(archive(("r", None), ("r/a", os.urandom(8000))))[:keep]
    with pytest.raises(Failure) as refused:
        unpack(iter([data]), tmp_path / "to")
    assert (refused.value.code, "broke off" in refused.value.message) == ("unreachable", True)


@pytest.mark.parametrize("keep", [0, 100, 512, 700, 5000])
def test_a_connection_that_breaks_off_is_told_as_such(tmp_path: Path, keep: int) -> None:
    """At the edge of a member, too, where the archive alone would look whole."""
    def pieces() -> Iterator[bytes]:
        yield b"".join(archive(("r", None), ("r/a", os.urandom(8000))))[:keep]
        raise Failure("unreachable", "The connection broke off.")

    with pytest.raises(Failure) as refused:
        unpack(pieces(), tmp_path / "to")
    assert refused.value.code == "unreachable"


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for target in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(Failure) as refused:
            unpack(archive(("r", None), ("r/a", b"x")), target)
        assert (refused.value.code, str(tmp_path / "file") in refused.value.message) == ("invalid-request", True)


def test_the_root_is_known_from_the_first_bytes() -> None:
    def endless() -> Iterator[bytes]:
        yield from archive(("r", None))
        raise AssertionError("more was read than is needed")

    root = root_of(endless())
    assert root is not None and root.isdir()


# --- names, as cp -r names things ---


class Session:
    """The files of a session, in a folder here."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "home/work").mkdir(parents=True)

    def get_archive(self, _: str, path: str) -> Iterator[bytes]:
        where = self.folder / path.lstrip("/")
        if not where.exists():
            raise Failure("not-found", f"There is no {path}.")
        yield from pack(where, where.name)

    def put_archive(self, _: str, path: str, tar: Iterator[bytes]) -> None:
        folder = self.folder / path.lstrip("/")
        data = b"".join(tar)
        if not folder.is_dir():
            raise Failure("not-found", f"There is no folder {path}.")
        with tarfile.open(fileobj=io.BytesIO(data)) as given:
            given.extractall(folder, filter="data")


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(tmp_path / "inside")


@pytest.mark.parametrize(("target", "lands"), [
    ("", "home/work/a"), (".", "home/work/a"), ("./", "home/work/a"), ("b", "home/work/b"), ("/home/work", "home/work/a"),
    ("/home/work/", "home/work/a"), ("sub", "home/work/sub/a"), ("sub/", "home/work/sub/a"), ("sub/b", "home/work/sub/b"), ("..", "home/a"),
    ("/home/work/sub/../b", "home/work/b")])
def test_an_upload_lands_where_cp_would_put_it(tmp_path: Path, session: Session, target: str, lands: str) -> None:
    (session.folder / "home/work/sub").mkdir()
    (tmp_path / "a").write_text("x")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "leaf").write_text("y")
    copy.upload(session, tmp_path / "a", "s", target)  # type: ignore[arg-type]  # as far as it is asked
    assert (session.folder / lands).read_text() == "x"
    (session.folder / lands).unlink()
    copy.upload(session, tmp_path / "tree", "s", target)  # type: ignore[arg-type]  # as above
    assert (session.folder / Path(lands.replace("/a", "/tree")) / "leaf").read_text() == "y"


def test_a_link_that_is_uploaded_is_followed_and_keeps_its_own_name(tmp_path: Path, session: Session) -> None:
    (tmp_path / "real.csv").write_text("x")
    (tmp_path / "data.csv").symlink_to("real.csv")
    copy.upload(session, tmp_path / "data.csv", "s", "")  # type: ignore[arg-type]  # as above
    assert harvest(session.folder / "home/work") == {"data.csv": b"x"}
    assert not (session.folder / "home/work/data.csv").is_symlink()


def test_the_folder_one_stands_in_is_uploaded_under_its_name(tmp_path: Path, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "proj").mkdir()
    (tmp_path / "proj" / "a").write_text("x")
    monkeypatch.chdir(tmp_path / "proj")
    for source in (Path(), Path("../proj"), Path("../proj/.")):
        copy.upload(session, source, "s", "")  # type: ignore[arg-type]  # as above
        assert harvest(session.folder / "home/work") == {"proj": {"a": b"x"}}


def test_what_is_not_here_is_said_before_anything_is_sent(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    ask: Callable[..., None] = copy.upload
    for name in ("nothing", "loop"):
        with pytest.raises(Failure) as refused:
            ask(None, tmp_path / name, "s", "")
        assert (refused.value.code, name in refused.value.message) == ("not-found", True)


def test_a_download_lands_where_cp_would_put_it(tmp_path: Path, session: Session) -> None:
    plant(session.folder / "home/work/tree", {"leaf": b"x"})
    here = tmp_path / "here"
    here.mkdir()
    for target, lands in ((here, here / "tree"), (here / "new", here / "new"), (here / "tree", here / "tree/tree")):
        copy.download(session, "s", "tree", target)  # type: ignore[arg-type]  # as above
        assert (lands / "leaf").read_text() == "x"
    with pytest.raises(Failure) as refused:
        copy.download(session, "s", "tree", here / "no" / "such")  # type: ignore[arg-type]  # as above
    assert refused.value.code == "not-found"
    with pytest.raises(Failure) as refused:
        copy.download(session, "s", "absent", here)  # type: ignore[arg-type]  # as above
    assert (refused.value.code, "/home/work/absent" in refused.value.message) == ("not-found", True)
