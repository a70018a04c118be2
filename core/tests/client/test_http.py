"""One kept connection and streams, over real sockets to servers that behave, and to some that do not."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import pytest
from backendai.client import calls, http
from backendai.client.call import Call
from backendai.client.http import Http, read_events, read_json_lines, read_lines
from backendai.client.sync import Client
from backendai.model.errors import Failure
from hypothesis import given
from hypothesis import strategies as st

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
GET: Call[None] = Call("GET", "/x")
POST: Call[None] = Call("POST", "/x", body={})
CREATE: Call[None] = Call("POST", "/x", body={}, key="k")
Script = Callable[[socket.socket], object]


class Server:
    """Takes connections one after the other, each with the next script; heard: the requests, by connection."""

    def __init__(self, *make: Callable[[Server], Script]) -> None:
        self.heard: list[list[bytes]] = []
        self._scripts = [script(self) for script in make]
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        for script in self._scripts:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return  # the test is over
            with connection:
                self.heard.append([])
                script(connection)

    def hear(self, connection: socket.socket) -> bytes:
        """Read one request with its body; nothing when the client has gone."""
        data = b""
        while b"\r\n\r\n" not in data:
            if not (piece := connection.recv(65536)):
                return b""
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        sizes = [int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        while sizes and len(body) < sizes[0]:
            body += connection.recv(65536)
        self.heard[-1].append(head + b"\r\n\r\n" + body)
        return data

    def answer(self, *answers: bytes) -> Script:
        """Return a script that answers each request on a connection with the next of *answers*, and then closes it."""
        def script(connection: socket.socket) -> None:
            for answer in answers:
                if not self.hear(connection):
                    return
                connection.sendall(answer)
        return script

    def close(self) -> None:
        self._socket.close()


@contextmanager
def served(*make: Callable[[Server], Script]) -> Iterator[Server]:
    server = Server(*make)
    try:
        yield server
    finally:
        server.close()


def answers(*given: bytes) -> Callable[[Server], Script]:
    return lambda server: server.answer(*given)


def failed(ask: Callable[[], object]) -> Failure:
    with pytest.raises(Failure) as refused:
        ask()
    return refused.value


def test_one_connection_is_kept() -> None:
    with served(answers(OK, OK, OK)) as server:
        client = Http(server.url, "t")
        assert [client.ask(GET) for _ in range(3)] == [b"{}"] * 3
        client.close()
        assert len(server.heard) == 1 and len(server.heard[0]) == 3


def test_the_request_says_who_asks_for_what() -> None:
    with served(answers(OK)) as server:
        Http(f"{server.url}/base", "secret").ask(calls.create_token("t", key="k"))
        head, _, body = server.heard[0][0].partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        assert lines[0] == b"POST /base/v1/tokens HTTP/1.1"
        assert {b"Authorization: Bearer secret", b"Idempotency-Key: k", b"Content-Type: application/json"} <= set(lines)
        assert json.loads(body) == {"name": "t"}


@pytest.mark.parametrize("call", [GET, POST, CREATE], ids=["GET", "POST", "POST with a key"])
def test_a_kept_connection_that_was_closed_meanwhile_is_not_used(call: Call[None]) -> None:
    with served(answers(OK), answers(OK)) as server:
        client = Http(server.url, "t")
        client.ask(GET)
        until_closed(client)
        assert client.ask(call) == b"{}"
        assert [len(requests) for requests in server.heard] == [1, 1]


def until_closed(client: Http) -> None:
    """Wait until the server's end of the kept connection has arrived."""
    assert client._kept is not None
    client._kept.sock.settimeout(10)
    assert client._kept.sock.recv(1, socket.MSG_PEEK) == b""


@pytest.mark.parametrize("call", [GET, CREATE], ids=["GET", "POST with a key"])
def test_what_may_be_repeated_is_when_the_connection_closes_under_it(call: Call[None]) -> None:
    """The server reads the request, and is gone: it may have done it or not."""
    with served(answers(OK, b""), answers(OK)) as server:
        client = Http(server.url, "t")
        client.ask(GET)
        assert client.ask(call) == b"{}"
        assert [len(requests) for requests in server.heard] == [2, 1]


def test_what_may_not_be_repeated_is_not() -> None:
    with served(answers(OK, b""), answers(OK)) as server:
        client = Http(server.url, "t")
        client.ask(GET)
        assert failed(lambda: client.ask(POST)).code == "unreachable"
        assert [len(requests) for requests in server.heard] == [2]
        assert client.ask(GET) == b"{}", "and the next one begins anew"


def test_nothing_is_repeated_on_a_new_connection() -> None:
    with served(answers(b""), answers(OK)) as server:
        assert failed(lambda: Http(server.url, "t").ask(GET)).code == "unreachable"
        assert len(server.heard) == 1


def test_an_answer_that_breaks_off_is_a_failure() -> None:
    with served(answers(b'HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{"id":')) as server:
        refused = failed(lambda: Http(server.url, "t").ask(GET))
        assert (refused.code, "broke off" in refused.message) == ("unreachable", True)


@pytest.mark.parametrize("head", [b"Content-Length: 20", b"Transfer-Encoding: chunked"])
def test_a_stream_that_breaks_off_is_a_failure_after_what_came(head: bytes) -> None:
    body = b"half" if b"Length" in head else b"4\r\nhalf\r\n"
    with served(answers(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n" + body)) as server:
        stream = Http(server.url, "t").stream(GET)
        assert next(stream) == b"half"
        assert failed(lambda: next(stream)).code == "unreachable"


def test_a_stream_has_a_connection_of_its_own() -> None:
    with served(answers(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"), answers(OK)) as server:
        client = Http(server.url, "t")
        stream = client.stream(GET)
        assert next(stream) == b"abc"
        stream.close()
        assert client.ask(GET) == b"{}"


def test_an_error_is_told_by_a_stream_too() -> None:
    problem = json.dumps(Failure("not-found", "There is no such thing.").problem()).encode()
    with served(answers(b"HTTP/1.1 404 No\r\nContent-Length: %d\r\n\r\n%s" % (len(problem), problem))) as server:
        refused = failed(lambda: list(Http(server.url, "t").stream(GET)))
        assert (refused.code, refused.message) == ("not-found", "There is no such thing.")


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    refused = failed(lambda: Http(f"http://127.0.0.1:{port}", "t").ask(GET))
    assert refused.code == "unreachable"
    assert f"127.0.0.1:{port}" in refused.message and "Connection refused" in refused.message and "bai up" in refused.message
    assert failed(lambda: list(Http(f"http://127.0.0.1:{port}", "t").stream(GET))).code == "unreachable"


def test_a_name_that_is_no_machine_s() -> None:
    refused = failed(lambda: Http("http://no-such-machine.invalid", "t").ask(GET))
    assert refused.code == "unreachable" and "no-such-machine.invalid" in refused.message and "bai login" in refused.message


@pytest.mark.parametrize("said", [b"SSH-2.0-OpenSSH_9.2\r\n", b"\x00\x01\x02\r\n\r\n"])
def test_what_does_not_speak_http_is_said(said: bytes) -> None:
    with served(answers(said)) as server:
        refused = failed(lambda: Http(server.url, "t").ask(GET))
        assert (refused.code, "manager" in refused.message) == ("unreachable", True)


def test_what_is_no_manager_is_said() -> None:
    page = b"<html>A printer</html>"
    with served(answers(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(page), page))) as server:
        refused = failed(lambda: Client(server.url, "t").get("/v1/sessions"))
        assert (refused.code, "manager" in refused.message) == ("internal", True)


def test_a_server_that_is_slow_is_given_up() -> None:
    slow: Call[None] = Call("GET", "/x", answer_s=0.2)
    over = threading.Event()

    def silent(server: Server) -> Script:
        return lambda connection: (server.hear(connection), over.wait(20))

    with served(silent, answers(OK)) as server:
        client = Http(server.url, "t")
        refused = failed(lambda: client.ask(slow))
        assert (refused.code, "0.2 s" in refused.message) == ("deadline", True)
        over.set()
        assert client.ask(GET) == b"{}"


def test_a_slow_answer_on_a_kept_connection_is_not_asked_for_again() -> None:
    over = threading.Event()

    def silent(server: Server) -> Script:
        def script(connection: socket.socket) -> None:
            server.answer(OK, b"")(connection)
            over.wait(20)
        return script

    with served(silent, answers(OK)) as server:
        client = Http(server.url, "t")
        client.ask(GET)
        assert failed(lambda: client.ask(Call("GET", "/x", answer_s=0.2))).code == "deadline"
        over.set()
        assert len(server.heard) == 1


def test_an_interrupted_question_leaves_no_half_used_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the middle, and then the session is to be stopped."""
    with served(answers(OK, b""), answers(OK)) as server:
        client = Http(server.url, "t")
        client.ask(GET)

        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(http.http.client.HTTPConnection, "getresponse", interrupt)
            client.ask(POST)
        assert client.ask(POST) == b"{}"


def test_an_upload_goes_piece_by_piece() -> None:
    received = bytearray()

    def take(connection: socket.socket) -> None:
        while not received.endswith(b"0\r\n\r\n"):
            received.extend(connection.recv(65536))
        connection.sendall(OK)

    with served(lambda _: take) as server:
        assert list(Http(server.url, "t").stream(Call("PUT", "/x"), iter([b"one", b"", b"two"]), {"X-A": "b"})) == [b"{}"]
    assert b"X-A: b\r\n" in received and b"Transfer-Encoding: chunked\r\n" in received
    assert received.endswith(b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"), "an empty piece would have ended it"


def test_an_upload_that_is_refused_early_says_why() -> None:
    problem = json.dumps(Failure("too-large", "It is too large.").problem()).encode()

    def refuse(connection: socket.socket) -> None:
        connection.recv(100)
        connection.sendall(b"HTTP/1.1 413 No\r\nContent-Length: %d\r\n\r\n%s" % (len(problem), problem))
        connection.shutdown(socket.SHUT_WR)
        time.sleep(0.2)

    with served(lambda _: refuse) as server:
        big = (os.urandom(65536) for _ in range(400))
        refused = failed(lambda: list(Http(server.url, "t").stream(Call("PUT", "/x"), big)))
        assert (refused.code, refused.message) == ("too-large", "It is too large.")
    assert next(big, None) is not None, "and the rest was not read"


def test_an_upload_whose_source_fails_is_not_taken_for_whole() -> None:
    received = bytearray()
    ended = threading.Event()

    def take(connection: socket.socket) -> None:
        while data := connection.recv(65536):
            received.extend(data)
        ended.set()

    def pieces() -> Iterator[bytes]:
        yield b"one"
        raise Failure("invalid-request", "It cannot be read.")

    with served(lambda _: take) as server:
        assert failed(lambda: list(Http(server.url, "t").stream(Call("PUT", "/x"), pieces()))).code == "invalid-request"
        assert ended.wait(10)
    assert received.endswith(b"one\r\n"), "no last chunk: the server knows that it broke off"


@given(text=st.binary(max_size=200), cuts=st.lists(st.integers(0, 200)))
def test_lines_are_the_same_however_they_come(text: bytes, cuts: list[int]) -> None:
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[a:b] for a, b in pairwise(places)]
    want = text.split(b"\n")
    assert list(read_lines(pieces)) == (want[:-1] if not want[-1] else want)


def test_progress_ends_with_a_word_or_is_a_failure() -> None:
    assert list(read_json_lines([b'{"progress": 1}\n\n{"do', b'ne": true}\n'])) == [{"progress": 1}, {"done": True}]
    lines = read_json_lines([b'{"progress": 1}\n'])
    assert next(lines) == {"progress": 1}
    assert failed(lambda: next(lines)).code == "unreachable"
    refused = failed(lambda: list(read_json_lines([b'{"error": {"code": "bad-image", "message": "No."}}\n'])))
    assert (refused.code, refused.message) == ("bad-image", "No.")


def test_events_are_read_whole() -> None:
    stream = [b": hello\n\nretry: 5\n\nid: 1\nevent: x\ndata: {\ndata: 1}\n", b"\ndata:2\n\n", b"data: cut o"]
    assert list(read_events(stream)) == [b"{\n1}", b"2"]
