"""The page beside a run that goes on: what is new comes once, and nothing but runs is served, to nobody but this machine."""

import gzip
import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest
from tests.pages import make_run, sample

from burnish.report.page.live import server
from burnish.report.page.runs import PageError
from burnish.report.samples import SampleFiles


@contextmanager
def served(*folders, host="127.0.0.1"):
    """→ a function from a path to (status, headers, content)."""
    with server(folders, host, 0) as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()

        def ask(path, headers=None, method="GET"):
            connection = http.client.HTTPConnection("127.0.0.1", serving.server_address[1], timeout=5)
            connection.request(method, path, headers=headers or {})
            answer = connection.getresponse()
            content = answer.read()
            connection.close()
            return (
                answer.status,
                dict(answer.headers),
                gzip.decompress(content) if answer.headers["Content-Encoding"] == "gzip" else content,
            )

        try:
            yield ask
        finally:
            serving.shutdown()
            thread.join(5)


def told(ask, path):
    status, _, content = ask(path)
    assert status == 200
    return json.loads(content)


def test_the_page_and_a_run(tmp_path):
    with served(make_run(tmp_path / "one")) as ask:
        status, headers, page = ask("/")
        assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert b"connect-src 'self'" in page
        assert told(ask, "/run/0/record")["method"] == "grpo"
        assert told(ask, "/run/0/vocabulary")["special"] == [0]


def test_metrics_come_once(tmp_path):
    run = make_run(tmp_path / "one")
    with served(run) as ask:
        first = told(ask, "/run/0/metrics?after=0:0:0")
        assert first["series"]["loss"] == [[1, 2, 3, 4], [1.0, 0.5, 0.333333, 0.25]]
        assert told(ask, f"/run/0/metrics?after={first['place']}") == {"series": {}, "place": first["place"], "anew": False}
        with (run / "metrics.jsonl").open("a") as file:
            file.write('{"step": 5, "loss": 0.2}\n{"step": 6, "lo')
        second = told(ask, f"/run/0/metrics?after={first['place']}")
        assert second["series"] == {"loss": [[5], [0.2]]}
        (run / "metrics.jsonl").write_text('{"step": 1, "loss": 7.0}\n')
        assert told(ask, f"/run/0/metrics?after={second['place']}") == {
            "series": {"loss": [[1], [7.0]]},
            "place": told(ask, "/run/0/metrics")["place"],
            "anew": True,
        }


def test_samples_come_once_and_are_opened_by_the_place_before_them(tmp_path):
    run = make_run(tmp_path / "one")
    files = SampleFiles(run)
    files.place = (0, (run / "samples" / "00000.jsonl.gz").stat().st_size)
    with served(run) as ask:
        first = told(ask, "/run/0/index?after=0:0:0")
        assert len(first["index"]["step"]) == 24
        assert told(ask, f"/run/0/index?after={first['place']}")["index"] is None
        files.append([sample(4, "rows:9")])
        second = told(ask, f"/run/0/index?after={first['place']}")
        assert second["index"]["groups"] == ["rows:9"]
        assert told(ask, f"/run/0/text?after={first['place']}")["text"] == ["step 4 rows:9 number 0"]
        assert len(told(ask, "/run/0/tokens?after=0:0:0")["samples"]) == 25, "the part has grown; what was there has kept its place"
        assert ask(f"/run/0/text?after={second['place']}")[0] == 404
        files.cut((0, 0))
        files.append([sample(0, "rows:5")])
        assert told(ask, f"/run/0/index?after={first['place']}")["anew"]
        assert told(ask, "/run/0/index?after=1:500:9") == {"index": None, "anew": True}, "of a file that was cut away"


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd",
        "/run/0/../../metrics.jsonl",
        "/run/0/%2e%2e/metrics",
        "/run/1/record",
        "/run/-1/record",
        "/run/0",
        "/run/0/record/more",
        "/run/0/other",
        "/run/0/metrics?after=1:2",
        "/run/0/text?after=0:99999:1",
        "//etc/passwd",
        "/favicon.ico",
    ],
)
def test_there_is_nothing_else(tmp_path, path):
    with served(make_run(tmp_path / "one")) as ask:
        status, _, content = ask(path)
        assert status in (404, 200)
        assert status == 404 or json.loads(content) == {"index": None, "anew": True}


def test_nothing_can_be_written(tmp_path):
    with served(make_run(tmp_path / "one")) as ask:
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            assert ask("/run/0/record", method=method)[0] == 501


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "[::2]"])
def test_a_page_of_another_site_is_refused(tmp_path, host):
    """DNS rebinding: its name leads to this machine, and the browser says the name."""
    with served(make_run(tmp_path / "one")) as ask:
        assert ask("/run/0/record", {"Host": host})[0] == 403
        assert ask("/", {"Host": host})[0] == 403


@pytest.mark.parametrize("host", ["127.1", "LOCALHOST"])
def test_this_machine_is_this_machine_however_it_is_spelled(tmp_path, host):
    with served(make_run(tmp_path / "one"), host=host) as ask:
        assert ask("/run/0/record", {"Host": "evil.example"})[0] == 403
        assert ask("/run/0/record", {"Host": f"{host.lower()}:80"})[0] == 200


def test_other_machines_are_served_where_that_is_asked_for(tmp_path):
    with served(make_run(tmp_path / "one"), host="0.0.0.0") as ask:
        assert ask("/run/0/record", {"Host": "this.example"})[0] == 200


def test_why_tokens_cannot_be_shown(tmp_path):
    run = make_run(tmp_path / "one")
    with served(run) as ask:
        assert told(ask, "/run/0/record")["tokenizer"] is None
        (run / "tokenizer.json").unlink()
        assert "there is no tokenizer.json" in told(ask, "/run/0/record")["tokenizer"]


def test_a_browser_that_has_left_is_no_news_and_a_fault_is(tmp_path, capsys):
    with server([tmp_path], "127.0.0.1", 0) as serving:
        for error in (ConnectionResetError("gone"), TimeoutError("late"), ZeroDivisionError("a fault")):
            try:
                raise error
            except (OSError, ArithmeticError):
                serving.handle_error(None, ("127.0.0.1", 1))
    said = capsys.readouterr().err
    assert "ZeroDivisionError: a fault" in said
    assert "gone" not in said
    assert "late" not in said


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:1", "localhost:8765", "[::1]:80", "[::1]"])
def test_this_machine_is_served(tmp_path, host):
    with served(make_run(tmp_path / "one")) as ask:
        assert ask("/run/0/record", {"Host": host})[0] == 200


def test_a_port_that_is_taken(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(PageError, match=r"cannot be served at 127\.0\.0\.1, port"):
        server([tmp_path], "127.0.0.1", other.getsockname()[1])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_at_once(tmp_path, number):
    """With a connection open that says nothing."""
    command = ["env", "--default-signal=INT,TERM"]  # tests in the background ignore SIGINT, and so would what they start
    command += [sys.executable, "-m", "burnish", "report", "--live", str(make_run(tmp_path / "one")), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        deadline = threading.Timer(60, process.kill)
        deadline.start()
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            port = int(said.split("127.0.0.1:")[1].split("/")[0])
            with socket.create_connection(("127.0.0.1", port), timeout=5):
                process.send_signal(number)
                assert process.wait(10) == 0
        finally:
            deadline.cancel()
            process.kill()
