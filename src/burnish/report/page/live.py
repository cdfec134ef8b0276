"""The page beside runs that go on: a small server that only reads, and is asked for what is new. It keeps nothing but what it read last."""

from __future__ import annotations

import gzip
import ipaddress
import json
import signal
import socket
import sys
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from burnish.report.page.page import packed, page_of, phases_of
from burnish.report.page.runs import PageError, head_of
from burnish.report.page.samples import part_at
from burnish.report.page.series import Adviser, series_of
from burnish.report.page.tail import Place, lines_since
from burnish.report.page.vocabulary import find_vocabulary

TIMEOUT_S = 20
"""A connection that says nothing for so long is closed."""
NAMES = ("localhost", "127.0.0.1", "[::1]")
"""Whom a browser may ask for: a page of another site whose name is made to lead here has another."""


Lines = list[dict[str, Any]]


class Live:
    """Answers about runs, each a number: `record`, and after a place `metrics`, `index`, `text` and `tokens` of samples; `vocabulary`."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = list(folders)
        self._read: dict[int, tuple[Place, Adviser, Lines, Lines]] = {}
        self._reading = threading.Lock()

    def answer(self, run: int, what: str, after: Place) -> Any:
        """Plain data. Raises KeyError for what there is none of."""
        folder = self.folders[run]
        if what == "record":
            head, (lines, advice) = head_of(folder), self._logged(run)
            said = {"tokenizer": find_vocabulary(folder, head["model"])[1] or None}
            return head | said | {"advice": advice, "phases": phases_of(head, lines)}
        if what == "metrics":
            lines, place, anew = lines_since(folder / "metrics.jsonl", after)
            return {"series": series_of(lines), "place": str(place), "anew": anew}
        if what == "vocabulary":
            vocabulary, _ = find_vocabulary(folder, head_of(folder)["model"])
            return vocabulary.of() if vocabulary else None
        try:
            part = part_at(folder, after)
        except ValueError:
            return {"index": None, "anew": True}
        if what == "index":
            return {"index": part.index if part else None, "place": str(part.after) if part else str(after), "anew": False}
        if part is None:
            raise KeyError(what)
        return {"text": part.text, "tokens": part.tokens}[what]

    def _logged(self, run: int) -> tuple[Lines, Lines]:
        """All log lines so far, and the advice on them."""
        with self._reading:
            place, adviser, before, said = self._read.get(run, (Place(), Adviser(), [], []))
            lines, place, anew = lines_since(self.folders[run] / "metrics.jsonl", place)
            if anew:
                adviser, before, said = Adviser(), [], []
            before, said = before + lines, said + adviser.of(lines)
            self._read[run] = place, adviser, before, said
            return before, said


class Handler(BaseHTTPRequestHandler):
    """GET only; what a path names is looked up, and never opened as a file."""

    timeout = TIMEOUT_S
    protocol_version = "HTTP/1.1"

    def __init__(self, live: Live, names: Collection[str] | None, *given: Any) -> None:
        self.live, self.names = live, names
        super().__init__(*given)

    def do_GET(self) -> None:
        if self.names is not None and _host(self.headers.get("Host", "")) not in self.names:
            return self._refuse(HTTPStatus.FORBIDDEN, "This is served to this machine alone.")
        url = urlsplit(self.path)
        if url.path == "/":
            page = page_of(self.live.folders, live=True).encode("utf-8", "backslashreplace")
            return self._send(gzip.compress(page, 1), "text/html; charset=utf-8")
        try:
            _, first, run, what = url.path.split("/")
            if first != "run" or not run.isdecimal():
                raise KeyError(first)
            after = Place.read(parse_qs(url.query).get("after", ["0:0:0"])[0])
            answer = self.live.answer(int(run), what, after)
        except (KeyError, IndexError, ValueError):
            return self._refuse(HTTPStatus.NOT_FOUND, "There is no such thing here.")
        except OSError as error:
            return self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, f"The run's folder cannot be read ({error.strerror}).")
        return self._send(packed(answer), "application/json")

    def _send(self, content: bytes, kind: str) -> None:
        self.send_response(HTTPStatus.OK)
        self._head(content, {"Content-Type": kind, "Content-Encoding": "gzip"})

    def _refuse(self, status: HTTPStatus, sentence: str) -> None:
        self.send_response(status)
        self._head(json.dumps({"error": sentence}).encode(), {"Content-Type": "application/json"})

    def _head(self, content: bytes, headers: Mapping[str, str]) -> None:
        safe = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Cross-Origin-Resource-Policy": "same-origin"}
        for name, value in {**headers, **safe, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        with suppress(ConnectionError):
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Nothing is printed for a request."""


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *given: Any) -> None:
        """A browser that has left is no news."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(*given)


def server(folders: Sequence[Path], host: str, port: int) -> Server:
    """Bound, and not serving yet. Raises PageError where it cannot be bound."""
    kind = type("Bound", (Server,), {"address_family": socket.AF_INET6 if ":" in host else socket.AF_INET})
    try:
        bound = kind((host, port), Handler)
    except OSError as error:
        raise PageError(
            f"The report cannot be served at {host}, port {port} ({error.strerror}); name another --port, or another --host."
        ) from error
    address = str(bound.server_address[0])  # of this machine alone or not, however the host was spelled
    names = {*NAMES, _bracketed(host).lower(), _bracketed(address)} if ipaddress.ip_address(address).is_loopback else None
    bound.RequestHandlerClass = partial(Handler, Live(folders), names)
    return bound


def serve(folders: Sequence[Path], host: str, port: int, started: Callable[[str], object]) -> None:
    """Serves the page until Ctrl-C or SIGTERM; `started` is told its address. Raises PageError where it cannot be served."""

    def end(*_: Any) -> None:
        raise KeyboardInterrupt

    with server(folders, host, port) as serving:
        before = signal.signal(signal.SIGTERM, end)
        try:
            started(f"http://{_bracketed(host)}:{serving.server_address[1]}/")
            serving.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            pass
        finally:
            signal.signal(signal.SIGTERM, before)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _host(header: str) -> str:
    """Without its port, in small letters."""
    return (header.rpartition(":")[0] if not header.endswith("]") and ":" in header else header).lower()
