"""The routes that stream, declared so that the API's description lists them; handlers are in ``manager.streams`` and ``sse``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from backendai.manager.operations.registry import Input, declare_stream
from backendai.model.views import Ran
from backendai.wire.frames import FRAMES_TYPE

NDJSON = "application/x-ndjson"
TAR = "application/x-tar"


class LogsQuery(Input, frozen=True):
    """follow: until the session has ended. tail: only the last so many lines. format: frames, or text for both streams as one.

    attempt: of a session that was tried again, an earlier one.
    """

    follow: bool = False
    attempt: int | None = None
    tail: int | None = None
    format: Literal["frames", "text"] = "frames"


class Exec(Input, frozen=True):
    """A command to run to its end. user: UID or UID:GID, for administrators. stdin: what it reads. timeout_s: at most an hour."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = msgspec.field(default_factory=dict)
    stdin: str = ""
    timeout_s: float = 600.0
    user: str | None = None
    workdir: str | None = None


class ArchiveQuery(Input, frozen=True):
    """path: inside the session; what is not absolute is below its home."""

    path: str


class Pull(Input, frozen=True):
    """image: NAME:TAG. agent: its id or name; none for every connected one that can."""

    image: str
    agent: str | None = None


class BuildQuery(Input, frozen=True):
    """name: of the new image. agent: its id or name; none for every connected one that can."""

    name: str
    agent: str | None = None


class EventsQuery(Input, frozen=True):
    """follow: go on after what has happened already."""

    follow: bool = True


_SESSION = "/v1/sessions/{id}"
STREAMS = (
    declare_stream("sessions.logs", "GET", f"{_SESSION}/logs", "Stream a session's output.", query=LogsQuery, content=FRAMES_TYPE),
    declare_stream("sessions.exec", "GET", f"{_SESSION}/exec", "Run a command in a session, over a WebSocket.", status=101,
                   mutates=True),
    declare_stream("sessions.run", "POST", f"{_SESSION}/exec", "Run a command in a session to its end.",
                   content="application/json", body=Exec, output=Ran, mutates=True),
    declare_stream("sessions.download", "GET", f"{_SESSION}/archive", "Read a path of a session as a tar.",
                   query=ArchiveQuery, content=TAR),
    declare_stream("sessions.upload", "PUT", f"{_SESSION}/archive", "Unpack a tar at a path of a session.",
                   query=ArchiveQuery, status=204, takes=TAR, mutates=True),
    declare_stream("images.pull", "POST", "/v1/images/pull", "Fetch an image; progress, a JSON object a line.",
                   content=NDJSON, body=Pull, mutates=True),
    declare_stream("images.build", "POST", "/v1/images/build", "Build an image from a folder; progress, a JSON object a line.",
                   query=BuildQuery, content=NDJSON, takes=TAR, mutates=True),
    declare_stream("events.watch", "GET", "/v1/events", "Follow what happens, as server-sent events; ``Last-Event-ID`` resumes.",
                   query=EventsQuery, content="text/event-stream"),
)
