"""The routes that stream: declared here, so that the API's description lists them; their handlers are in ``manager.streams`` and ``manager.sse``."""

from __future__ import annotations

import msgspec

from backendai.manager.operations.registry import Input, declare_stream
from backendai.wire.frames import FRAMES_TYPE

NDJSON = "application/x-ndjson"
TAR = "application/x-tar"


class Exec(Input, frozen=True):
    """A command to run to its end. stdin: what it reads, as text."""

    argv: tuple[str, ...]
    env: dict[str, str] = {}
    stdin: str | None = None
    timeout_s: float | None = None
    user: str | None = None
    workdir: str | None = None


class Ran(msgspec.Struct, frozen=True):
    """How it ended, and what it wrote; bytes that are not UTF-8 are replaced."""

    exit_code: int
    stdout: str
    stderr: str


class Pull(Input, frozen=True):
    """image: NAME:TAG. agent: its id or name; none for every connected one."""

    image: str
    agent: str | None = None


STREAMS = (
    declare_stream("sessions.logs", "GET", "/v1/sessions/{id}/logs", "Stream a session's output.", query=("follow", "tail", "format"),
                   content=FRAMES_TYPE),
    declare_stream("sessions.exec", "GET", "/v1/sessions/{id}/exec", "Run a command in a session, over a WebSocket.", status=101),
    declare_stream("sessions.run", "POST", "/v1/sessions/{id}/exec", "Run a command in a session to its end.", content="application/json",
                   body=Exec, output=Ran),
    declare_stream("sessions.download", "GET", "/v1/sessions/{id}/archive", "Read a path of a session as a tar.", query=("path",), content=TAR),
    declare_stream("sessions.upload", "PUT", "/v1/sessions/{id}/archive", "Unpack a tar at a path of a session.", query=("path",), status=204,
                   takes=TAR),
    declare_stream("images.pull", "POST", "/v1/images/pull", "Fetch an image; progress, a JSON object a line.", content=NDJSON, body=Pull),
    declare_stream("images.build", "POST", "/v1/images/build", "Build an image from a folder; progress, a JSON object a line.",
                   query=("name", "agent"), content=NDJSON, takes=TAR),
    declare_stream("events.watch", "GET", "/v1/events", "Follow what happens, as server-sent events; resumes after ``Last-Event-ID``.",
                   query=("follow",), content="text/event-stream"),
)
