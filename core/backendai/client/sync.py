"""The SDK for plain code."""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from backendai.client import calls
from backendai.client.call import Call
from backendai.client.calls import NewSession
from backendai.client.http import Http, read_events, read_json_lines
from backendai.client.settings import find_login
from backendai.model.errors import Failure
from backendai.model.session import FINAL, Session, SessionState

if TYPE_CHECKING:
    from backendai.model.explain import Overview, Queue, Why
    from backendai.model.views import EventLine, Images, Ran, SessionStats, Who

T = TypeVar("T")


class Client:
    """A manager, asked one thing after the other. Not for several threads at once; make one for each.

    url, token: found as ``bai`` finds them when left out. Every method raises ``Failure``, whose ``code`` is one of a closed set.
    A session is named by its id or by its owner's name for it. Whatever has no method of its own is sent by ``do``, with a call
    of ``backendai.client.calls``.
    """

    def __init__(self, url: str | None = None, token: str | None = None) -> None:
        login = find_login(url, token)
        self.http = Http(login.url, login.token)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connection."""
        self.http.close()

    def do(self, call: Call[T]) -> T:
        """Send a call and return its typed answer."""
        return call.read(self.http.ask(call))

    def raw(self, call: Call[Any]) -> Any:
        """Send a call and return its answer as the server wrote it, in plain lists and dictionaries; None where it is empty."""
        data = self.http.ask(call)
        try:
            return json.loads(data) if data else None
        except ValueError as error:
            raise Failure("internal", f"{call.path} answered with something else than JSON; is {self.http.url} a manager?") from error

    def get(self, path: str) -> Any:
        """Return what ``GET`` of a path answers, in plain lists and dictionaries."""
        return self.raw(Call("GET", path))

    def whoami(self) -> Who:
        """Return who you are to this cluster."""
        return self.do(calls.whoami())

    def create(self, new: NewSession, key: str = "") -> Session:
        """Ask for a session. key: the same twice makes one session only; made up when left out."""
        return self.do(calls.create_session(new, key))

    def session(self, session: str) -> Session:
        """Return a session as it is now."""
        return self.do(calls.get_session(session))

    def sessions(self, all: bool = False, state: SessionState | None = None, **whose: Any) -> Iterator[Session]:
        """Yield your sessions, newest first, page by page. all: ended ones, too. whose: project, user, everyone=True."""
        cursor: str | None = None
        while True:
            page = self.do(calls.list_sessions(all, state, cursor, **whose))
            yield from page.items
            if (cursor := page.next) is None:
                return

    def wait(self, session: str, state: str = "final", timeout_s: float | None = None) -> Session:
        """Return a session once it is ``running`` (or past that) or ``final``; raise ``Failure('deadline')`` after *timeout_s*."""
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left = calls.MOST_WAIT_S if end is None else min(calls.MOST_WAIT_S, max(0.0, end - time.monotonic()))
            found = self.do(calls.get_session(session, state, left))
            if is_there(found, state):
                return found
            if end is not None and time.monotonic() >= end:
                raise Failure("deadline", f"{found.name} is {found.state} after {timeout_s:g} s. {found.hold or found.progress}".rstrip())

    def stop(self, session: str, grace_s: float | None = None) -> Session:
        """Ask a session to end; it does so by itself. grace_s: from SIGTERM to SIGKILL."""
        return self.do(calls.stop_session(session, grace_s))

    def remove(self, session: str, force: bool = False) -> None:
        """Forget a session that has ended. force: stop it first."""
        self.do(calls.remove_session(session, force))

    def stats(self, session: str) -> SessionStats:
        """Return what a session uses."""
        return self.do(calls.stats_of_session(session))

    def why(self, session: str, replay: bool = False) -> Why:
        """Say why a session waits, what would let it start and when it will. replay: make the decision that placed it again."""
        return self.do(calls.why_session(session, replay))

    def dry_run(self, new: NewSession) -> Why:
        """Say what would become of a session, without asking for it; raise what ``create`` would."""
        return self.do(calls.dry_run(new))

    def queue(self, group: str | None = None) -> tuple[Queue, ...]:
        """Return who waits in each resource group, in the order in which they go."""
        return self.do(calls.get_queue(group))

    def overview(self) -> Overview:
        """Return how everything stands, as far as you may see it."""
        return self.do(calls.get_overview())

    def logs(self, session: str, follow: bool = False, tail: int | None = None, attempt: int | None = None) -> Iterator[tuple[int, bytes]]:
        """Yield the output as (1 for standard output or 2 for standard error, bytes). follow: until the session has ended."""
        from backendai.wire.frames import Deframer

        cutter = Deframer()
        for piece in self.http.stream(calls.logs_of_session(session, follow, tail, attempt)):
            yield from cutter.feed(piece)

    def exec(self, session: str, argv: Sequence[str], stdin: str = "", env: Mapping[str, str] | None = None, workdir: str | None = None,
             timeout_s: float | None = None) -> Ran:
        """Run a command to its end, at most 8 MiB of output; ``AsyncClient.open`` has terminals and streams."""
        return self.do(calls.exec_in_session(session, argv, stdin, env, None, workdir, timeout_s))

    def get_archive(self, session: str, path: str) -> Generator[bytes, None, None]:
        """Yield a path of a running session as a tar."""
        return self.http.stream(calls.archive_of_session(session, path))

    def put_archive(self, session: str, path: str, tar: Iterable[bytes]) -> None:
        """Unpack a tar at the folder *path* of a running session."""
        for _ in self.http.stream(calls.archive_of_session(session, path, put=True), tar, {"Content-Type": "application/x-tar"}):
            continue

    def upload(self, source: Path | str, session: str, target: str) -> None:
        """Copy a file or a folder into a running session, as ``cp -r`` would name it."""
        from backendai.client.copy import upload

        upload(self, Path(source), session, target)

    def download(self, session: str, source: str, target: Path | str) -> None:
        """Copy a file or a folder out of a running session, as ``cp -r`` would name it."""
        from backendai.client.copy import download

        download(self, session, source, Path(target))

    def images(self) -> Images:
        """Return the images of every connected agent."""
        return self.do(calls.list_images())

    def pull(self, image: str, agent: str | None = None) -> Iterator[dict[str, Any]]:
        """Fetch an image onto one agent or all, and yield progress; the last has ``done`` and ``agents``."""
        return read_json_lines(self.http.stream(calls.pull_image(image, agent)))

    def build(self, folder: Path | str, name: str | None = None, agent: str | None = None) -> Iterator[dict[str, Any]]:
        """Build an image from the recipe in *folder*, and yield progress as ``pull`` does."""
        from backendai.client.recipe import load_recipe, pack_recipe

        recipe = load_recipe(Path(folder))
        call = calls.build_image(name or recipe.name, agent)
        return read_json_lines(self.http.stream(call, pack_recipe(recipe), {"Content-Type": "application/x-tar"}))

    def events(self, follow: bool = True, after: int | None = None) -> Iterator[EventLine]:
        """Yield what happens from now on, or after the event with the id *after*; without *follow* what has happened already."""
        import msgspec

        from backendai.model.views import EventLine

        for data in self.raw_events(follow, after):
            yield msgspec.json.decode(data, type=EventLine)

    def raw_events(self, follow: bool = True, after: int | None = None) -> Iterator[bytes]:
        """Yield the same as the server wrote it, JSON."""
        headers = {} if after is None else {"Last-Event-ID": str(after)}
        return read_events(self.http.stream(calls.watch_events(follow), headers=headers))


def is_there(session: Session, state: str) -> bool:
    """Tell whether a session is at least ``running``, or ``final``."""
    past = (SessionState.RUNNING, SessionState.TERMINATING)
    return session.state in FINAL or (state == "running" and session.state in past)
