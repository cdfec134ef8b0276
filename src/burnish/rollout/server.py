"""JSON over HTTP to a server that samples. Every wait has an end; whoever waits says in its error for what.

Nothing is retried here: `LostError` says that the server may have to be waited for, `RefusedError` that asking again is no use.
"""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

CHUNK = 1 << 16
JSON = {"Content-Type": "application/json"}


class LostError(Exception):
    """The server cannot be reached, hung up before its answer was whole, or failed by itself. It may have been started anew."""


class FailedError(LostError):
    """The server is there, and failed at this request (HTTP 500)."""


class RefusedError(Exception):
    """The server answered that the request is wrong (HTTP 4xx), in its own words."""


class Server:
    """An HTTP or HTTPS address and what is asked of it. Proxies named in the environment are not used."""

    def __init__(self, base_url: str) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{base_url!r} is no address of a server; give one such as 'http://127.0.0.1:8000'.")
        self.base_url = base_url.rstrip("/")
        self._kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._host, self._port, self._path = parts.hostname, parts.port, parts.path.rstrip("/")

    def get(self, path: str, *, seconds: float) -> Any:
        """The answer, read as JSON; None where it is empty. Raises LostError (also after `seconds`) and RefusedError."""
        return self._whole("GET", path, None, seconds)

    def post(self, path: str, body: Mapping[str, Any], *, seconds: float) -> Any:
        """As `get`, of a request with a body."""
        return self._whole("POST", path, body, seconds)

    def _whole(self, method: str, path: str, body: Mapping[str, Any] | None, seconds: float) -> Any:
        deadline = time.monotonic() + seconds
        connection = self._kind(self._host, self._port, timeout=max(seconds, 0.001))
        try:
            sock = connect(connection, path)
            return read_whole(answer(connection, method, self._path + path, body, seconds), path, deadline, sock)
        finally:
            connection.close()

    def stream(self, path: str, body: Mapping[str, Any], *, seconds: float) -> Stream:
        """An answer that comes in parts. `seconds` bound the connecting alone: who reads the parts ends the waiting with `Stream.close`."""
        return Stream(self._kind(self._host, self._port, timeout=max(seconds, 0.001)), self._path + path, body)


class Stream:
    """The events of an answer (server-sent events of JSON), read in one thread and closed from any."""

    def __init__(self, connection: http.client.HTTPConnection, path: str, body: Mapping[str, Any]) -> None:
        self._connection, self._path, self._body = connection, path, body
        self._socket: socket.socket | None = None
        self._closed = False
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[Any]:
        """Raises LostError where the answer ends before the server said ``[DONE]``, and RefusedError."""
        try:
            sock = connect(self._connection, self._path)
            with self._lock:
                self._socket = sock
                if self._closed:
                    return
            sock.settimeout(None)
            response = answer(self._connection, "POST", self._path, self._body, None)
            while True:
                line = readline(response, self._path)
                if not line:
                    raise LostError(f"{self._path}: the answer ended in the middle")
                if line.strip() == b"data: [DONE]":
                    return
                if line.startswith(b"data: "):
                    yield event(line[6:], self._path)
        finally:
            self._connection.close()

    def close(self) -> None:
        """Ends the reading wherever it stands."""
        with self._lock:
            self._closed = True
            if self._socket is not None:
                try:
                    self._socket.shutdown(socket.SHUT_RDWR)
                except OSError:
                    return  # it has ended already


def connect(connection: http.client.HTTPConnection, path: str) -> socket.socket:
    """Its socket, which the connection itself forgets when the server says that it will hang up."""
    try:
        connection.connect()
    except OSError as error:
        raise LostError(f"{path}: {words(error)}") from error
    return connection.sock


def answer(
    connection: http.client.HTTPConnection, method: str, path: str, body: Mapping[str, Any] | None, seconds: float | None
) -> http.client.HTTPResponse:
    """The head of the answer. Raises LostError and RefusedError."""
    try:
        connection.request(method, path, None if body is None else json.dumps(body, allow_nan=False), JSON)
        response = connection.getresponse()
        if response.status == 200:
            return response
        text = response.read(CHUNK).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        late = isinstance(error, TimeoutError) and seconds is not None
        raise LostError(f"{path}: no answer within {seconds:.3g} s" if late else f"{path}: {words(error)}") from error
    kind = RefusedError if 400 <= response.status < 500 else FailedError if response.status == 500 else LostError
    raise kind(f"{path}: HTTP {response.status}, {message(text)}")


def read_whole(response: http.client.HTTPResponse, path: str, deadline: float, sock: socket.socket) -> Any:
    """The rest of the answer. A server that sends a byte now and then is not waited for longer than one that sends none."""
    parts = []
    try:
        while part := response.read1(CHUNK):
            parts.append(part)
            if (left := deadline - time.monotonic()) <= 0:
                raise TimeoutError
            if not response.isclosed():
                sock.settimeout(left)
        if response.length:
            raise http.client.IncompleteRead(b"", response.length)
    except TimeoutError as error:
        raise LostError(f"{path}: the answer was not whole in time") from error
    except (OSError, http.client.HTTPException) as error:
        raise LostError(f"{path}: {words(error)}") from error
    text = b"".join(parts)
    return event(text, path) if text else None


def readline(response: http.client.HTTPResponse, path: str) -> bytes:
    try:
        return response.readline()
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: of a response closed under it
        raise LostError(f"{path}: {words(error)}") from error


def event(text: bytes, path: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise LostError(f"{path}: the answer is no JSON: {text[:80].decode('utf-8', 'replace')!r}") from error


def words(error: Exception) -> str:
    return str(error) or type(error).__name__


def message(text: str) -> str:
    """What a server says of an error: `message` within `error`, where its JSON has them, and otherwise the text."""
    try:
        said = json.loads(text)
    except ValueError:
        return text[:400] or "without a word"
    found = said.get("error", said) if isinstance(said, dict) else said
    return str(found.get("message", found) if isinstance(found, dict) else found)[:400]
