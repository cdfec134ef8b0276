"""Every wait for a server ends, and its errors say of what they are."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest

from burnish.rollout.server import FailedError, LostError, RefusedError, Server


class Raw:
    """Accepts connections and sends given bytes, pausing between them."""

    def __init__(self, parts: list[bytes], pause: float = 0.0, hold: bool = False) -> None:
        self.parts, self.pause, self.hold = parts, pause, hold
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.server = Server(f"http://127.0.0.1:{self.listener.getsockname()[1]}")
        self.done = threading.Event()
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                with connection, contextlib.suppress(OSError):
                    connection.recv(1 << 16)
                    for part in self.parts:
                        connection.sendall(part)
                        time.sleep(self.pause)
                    if self.hold:
                        self.done.wait(5)
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(1 << 16):  # closed with something unread, it would be a reset
                        pass

    def __enter__(self) -> Server:
        return self.server

    def __exit__(self, *error: object) -> None:
        self.done.set()
        self.listener.shutdown(socket.SHUT_RDWR)  # which ends accept, and close does not
        self.listener.close()


def head(length: int, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n".encode()


STREAM = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return f"{len(data):X}\r\n".encode() + data + b"\r\n"


def test_an_answer():
    with Raw([head(9) + b'{"a":', b" 1}\n"[:4]]) as server:
        assert server.get("/x", seconds=2) == {"a": 1}
    with Raw([head(0)]) as server:
        assert server.post("/x", {}, seconds=2) is None
    with Raw([b'HTTP/1.0 200 OK\r\n\r\n{"a": 2}']) as server:  # its end is the connection's
        assert server.get("/x", seconds=2) == {"a": 2}


def test_an_answer_that_trickles_is_not_waited_for_longer():
    """A byte each 0.05 s would keep every single read within 0.3 s for ever."""
    with Raw([head(1000), *[b" "] * 1000], pause=0.05) as server:
        began = time.monotonic()
        with pytest.raises(LostError, match="/x: the answer was not whole in time"):
            server.get("/x", seconds=0.3)
        assert time.monotonic() - began < 1


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        ([], LostError, "/x: Remote end closed connection"),
        ([head(50) + b'{"a": 1}'], LostError, "/x: IncompleteRead"),
        ([b"HTTP/1.1 2"], LostError, "/x: "),
        ([head(4) + b"{{{{"], LostError, "the answer is no JSON: '{{{{'"),
        ([head(2, "503 Busy") + b"no"], LostError, "/x: HTTP 503, no"),
        ([head(0, "500 Error")], FailedError, "/x: HTTP 500, without a word"),
        ([head(35, "400 Bad") + b'{"error": {"message": "too long!!"}}'[:35]], RefusedError, "HTTP 400, "),
        ([head(33, "404 Bad") + b'{"error":{"message":"not there"}}'], RefusedError, "HTTP 404, not there"),
        ([head(22, "404 Bad") + b'{"detail":"Not Found"}'], RefusedError, "HTTP 404, .*Not Found"),
    ],
)
def test_faults(said, kind, words):
    with Raw(said) as server, pytest.raises(kind, match=words) as error:
        server.get("/x", seconds=2)
    assert error.type is kind


def test_a_server_that_is_not_there():
    with Raw([]) as server:
        pass
    with pytest.raises(LostError, match="/x: .*refused"):
        server.get("/x", seconds=2)
    with pytest.raises(LostError, match="/x: .*refused"):
        list(server.stream("/x", {}, seconds=2))


def test_events():
    parts = [STREAM, chunk(b'data: {"a": 1}\n\ndata: {"a"'), chunk(b": 2}\n\n: ping\n\n"), chunk(b"data: [DONE]\n\n"), chunk(b"")]
    with Raw(parts) as server:
        assert list(server.stream("/x", {}, seconds=2)) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize("parts", [[], [chunk(b"")], [b"50\r\ndata: "]])
def test_events_that_break_off(parts):
    with Raw([STREAM, chunk(b'data: {"a": 1}\n\n'), *parts]) as server:
        events = iter(server.stream("/x", {}, seconds=2))
        assert next(events) == {"a": 1}
        with pytest.raises(LostError, match="/x: "):
            next(events)


def test_a_stream_is_closed_from_another_thread():
    with Raw([STREAM, chunk(b'data: {"a": 1}\n\n')], hold=True) as server:
        stream = server.stream("/x", {}, seconds=2)
        found: list[object] = []

        def read() -> None:
            try:
                found.extend(stream)
            except LostError as error:
                found.append(str(error))

        reader = threading.Thread(target=read)
        reader.start()
        time.sleep(0.1)
        assert reader.is_alive()
        stream.close()
        reader.join(1)
        assert not reader.is_alive()
        assert found == [{"a": 1}, "/x: the answer ended in the middle"]


def test_a_stream_that_is_closed_before_it_begins():
    with Raw([STREAM], hold=True) as server:
        stream = server.stream("/x", {}, seconds=2)
        stream.close()
        assert list(stream) == []


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://a", "http://"])
def test_an_address_that_is_none(url):
    with pytest.raises(ValueError, match="is no address of a server"):
        Server(url)
