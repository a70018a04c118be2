"""The routes that stream, declared so that the API's description lists them; handlers are in ``manager.streams`` and ``sse``."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from backendai.manager.operations.registry import Input, declare_stream
from backendai.wire.frames import FRAMES_TYPE

NDJSON = "application/x-ndjson"
TAR = "application/x-tar"


class Exec(Input, frozen=True):
    """A command to run to its end. stdin: what it reads, as text."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = msgspec.field(default_factory=dict)
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


_SESSION = "/v1/sessions/{id}"
STREAMS = (
    declare_stream("sessions.logs", "GET", f"{_SESSION}/logs", "Stream a session's output.",
                   query=("follow", "tail", "format"), content=FRAMES_TYPE),
    declare_stream("sessions.exec", "GET", f"{_SESSION}/exec", "Run a command in a session, over a WebSocket.", status=101),
    declare_stream("sessions.run", "POST", f"{_SESSION}/exec", "Run a command in a session to its end.",
                   content="application/json", body=Exec, output=Ran),
    declare_stream("sessions.download", "GET", f"{_SESSION}/archive", "Read a path of a session as a tar.",
                   query=("path",), content=TAR),
    declare_stream("sessions.upload", "PUT", f"{_SESSION}/archive", "Unpack a tar at a path of a session.",
                   query=("path",), status=204, takes=TAR),
    declare_stream("images.pull", "POST", "/v1/images/pull", "Fetch an image; progress, a JSON object a line.",
                   content=NDJSON, body=Pull),
    declare_stream("images.build", "POST", "/v1/images/build", "Build an image from a folder; progress, a JSON object a line.",
                   query=("name", "agent"), content=NDJSON, takes=TAR),
    declare_stream("events.watch", "GET", "/v1/events", "Follow what happens, as server-sent events; ``Last-Event-ID`` resumes.",
                   query=("follow",), content="text/event-stream"),
)
