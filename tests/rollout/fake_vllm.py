"""A server that speaks as vLLM does and has one weight, w: token t after token s has the log-prob -1 - w - ((3 s + t) mod 5) / 10.

What is published is a folder with w in it. It samples the tokens 10, 11, 12, … of a completion's index and position, and has faults.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np


def logp(w: float, before: int, token: int) -> float:
    return -1 - w - ((3 * before + token) % 5) / 10


def logps(w: float, context: Sequence[int], token_ids: Sequence[int]) -> np.ndarray:
    row = [int(one) for one in (*context, *token_ids)]
    return np.array([logp(w, row[i - 1], row[i]) for i in range(len(context), len(row))])


class Trainer:
    """The other side: its own w, published and scored with."""

    def __init__(self) -> None:
        self.w = 0.0
        self.calls: list[str] = []

    def publish(self, folder: Path) -> None:
        self.calls.append("publish")
        folder.mkdir(parents=True)
        (folder / "w.json").write_text(json.dumps(self.w))

    def rescore(self, rows: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
        self.calls.append("rescore")
        return [logps(self.w, *row) for row in rows]


class FakeVLLM:
    """`with FakeVLLM() as server`: then `server.url`. Attributes are its faults; a callable stands for what it does instead."""

    def __init__(self) -> None:
        self.model, self.offset, self.raw, self.stale = "fake", 0.0, False, False
        self.bodies: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.before: dict[str, Callable[[], Any]] = {}
        """Path → called before it is answered; what it returns, if anything, is the answer: (status, JSON)."""
        self.deaths: list[int] = []
        """Of the next streamed answers: after how many events each hangs up in the middle; -1: not at all."""
        self.restarts = False
        """Whether it is started anew when it hangs up so."""
        self.on_death: Callable[[], object] = lambda: None
        self.gate: threading.Event | None = None
        """Waited for, 5 s at most, before any but the first completion of an answer."""
        self.waited_out = False
        self.spoil: Callable[[dict[str, Any]], Any] = lambda choice: choice
        self.restart()

    def restart(self) -> None:
        self.w, self.label, self.cached = 7.0, "default", False

    def __enter__(self) -> FakeVLLM:
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"fake": self}))
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.gate is not None:
            self.gate.set()
        self._http.shutdown()
        self._http.server_close()

    def answer(self, path: str, body: dict[str, Any]) -> Any:
        if path == "/v1/models":
            return {"data": [{"id": self.model, "parent": None}, {"id": "an-adapter", "parent": self.model}]}
        if path == "/weight_info":
            return {"weight_version": self.label}
        if path == "/collective_rpc":
            assert body["method"] == "reload_weights"
            if not self.stale:
                self.w, self.cached = json.loads((Path(body["kwargs"]["weights_path"]) / "w.json").read_text()), True
            return {"results": [None]}
        if path == "/reset_prefix_cache":
            self.cached = False
            return {"success": True}
        if path == "/update_weight_version":
            self.label = body["new_version"]
            return {"success": True}
        assert path == "/v1/completions"
        assert not body.get("stream")
        prompt = body["prompt"]
        said = zip(prompt[1:], logps(self.w + self.offset, prompt[:1], prompt[1:]), strict=True)
        scores = [None, *({str(token): {"logprob": float(p)}} for token, p in said)]
        sampled = {"token_logprobs": [-0.7 if self.raw else 0.0]}
        return {"choices": [{"prompt_token_ids": prompt, "logprobs": sampled, "prompt_logprobs": scores, "token_ids": [1]}]}

    def events(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Two tokens an event, completion by completion. The i-th has i + 2 tokens and then stops, where it may be that long."""
        assert not self.cached, "the prefix cache is that of the weights before"
        for i in range(body["n"]):
            count = min(i + 2, body["max_tokens"])
            stops = count == i + 2 and body["stop_token_ids"]
            ids = [10 + i + j for j in range(count - 1)] + [body["stop_token_ids"][0] if stops else 60]
            ps = logps(self.w, body["prompt"], ids).tolist()
            if i and self.gate is not None:
                self.waited_out |= not self.gate.wait(5)
            for at in range(0, count, 2):
                choice: dict[str, Any] = {"index": i, "token_ids": ids[at : at + 2], "logprobs": {"token_logprobs": ps[at : at + 2]}}
                choice |= {"finish_reason": None, "stop_reason": None}
                if at + 2 >= count:
                    choice |= {"finish_reason": "stop" if stops else "length", "stop_reason": ids[-1] if stops else None}
                yield {"choices": [self.spoil(choice)]}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fake: FakeVLLM

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.serve({})

    def do_POST(self) -> None:
        self.serve(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def serve(self, body: dict[str, Any]) -> None:
        fake = self.fake
        fake.paths.append(self.path)
        fake.bodies.append(body)
        name = "stream" if body.get("stream") else self.path
        said = fake.before.get(name, lambda: None)()
        if said is not None:
            self.whole(*said)
        elif name == "stream":
            self.stream(body)
        elif body.get("model", fake.model) != fake.model:
            self.whole(404, {"error": {"message": f"The model `{body['model']}` does not exist."}})
        else:
            self.whole(200, fake.answer(self.path, body))

    def whole(self, status: int, answer: Any) -> None:
        text = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def stream(self, body: dict[str, Any]) -> None:
        fake = self.fake
        death = fake.deaths.pop(0) if fake.deaths else -1
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for count, event in enumerate(fake.events(body)):
            if count == death:
                self.close_connection = True
                fake.on_death()
                if fake.restarts:
                    fake.restart()
                return
            self.chunk(b"data: " + json.dumps(event).encode() + b"\n\n")
        self.chunk(b"data: [DONE]\n\n")
        self.chunk(b"")

    def chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):X}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()


def silence(seconds: float) -> Callable[[], None]:
    return lambda: time.sleep(seconds)
