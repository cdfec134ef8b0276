import io
import math
from mmap import mmap

import pytest
import rich.console
import rich.text

from burnish.report import console as console_module
from burnish.report.console import Console, memory_bytes


@pytest.fixture
def clock(monkeypatch):
    """Seconds, moved by hand; 2.1 GB of memory."""
    now = [100.0]
    monkeypatch.setattr(console_module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(console_module, "memory_bytes", lambda: 2_100_000_000)
    return now


def make(terminal=False, **options):
    out = io.StringIO()
    return Console(console=rich.console.Console(file=out, width=60, force_terminal=terminal, _environ={}), **options), out


LOGS = {
    "loss": 1.2341,
    "grad_norm": 0.83,
    "entropy": 2.0,
    "learning_rate": 1.9e-05,
    "epoch": 0.1,
    "tokens_per_second": 1234.4,
    "trained_share": 0.612,
}


def test_a_line_at_each_logging_step(clock):
    console, out = make()
    console.start(300)
    clock[0] += 18
    for step in range(1, 21):
        console.advance(step)
    console.log(20, LOGS)
    assert out.getvalue() == "step 20/300  loss 1.234  lr 1.9e-05  grad 0.83  1,234 tok/s  61% trained  2.1 GB  4:12 left\n"


def test_what_is_not_logged_is_not_shown(clock):
    console, out = make()
    console.start(10)
    console.log(10, {"loss": math.nan})
    assert out.getvalue() == "step 10/10  loss nan  2.1 GB\n"


@pytest.mark.parametrize(
    ("total", "done", "step", "seconds", "left"),
    [(20, 0, 10, 10, "0:10"), (20, 10, 15, 50, "0:50"), (7210, 0, 10, 10, "2:00:00"), (3700, 0, 1, 1.0, "1:01:39")],
)
def test_time_left_is_judged_by_this_processs_steps(clock, total, done, step, seconds, left):
    console, out = make()
    console.start(total, done)
    clock[0] += seconds
    console.log(step, {})
    assert out.getvalue() == f"step {step}/{total}  2.1 GB  {left} left\n"


def test_evaluation_lines(clock):
    console, out = make()
    console.evaluated(0, {"eval_loss": 1.5})
    console.start(300)
    console.evaluated(20, {"eval_loss": 1.1984, "eval_perplexity": 3.31, "eval_token_accuracy": 0.71428})
    console.evaluated(20, {"eval_chat_loss": 0.5}, "eval_chat")
    assert out.getvalue() == (
        "step 0  eval: loss 1.5\nstep 20/300  eval: loss 1.198  perplexity 3.31  token accuracy 0.7143\nstep 20/300  eval_chat: loss 0.5\n"
    )


def test_messages_are_printed_as_they_are(clock):
    console, out = make()
    text = "Skipped /out/checkpoint-20: [bold] :smile: " + "x" * 80
    console.message(text)
    assert out.getvalue() == text + "\n"


@pytest.mark.parametrize("live", [None, True, False])
def test_other_ranks_are_silent(clock, live):
    console, out = make(terminal=True, main=False, live=live)
    console.start(10)
    console.advance(1)
    console.log(1, LOGS)
    console.evaluated(1, {"eval_loss": 1.0})
    console.message("hello")
    console.stop()
    assert out.getvalue() == ""


def test_a_terminal_gets_a_bar_and_lines_above_it(clock):
    console, out = make(terminal=True)
    console.stop()
    console.start(300)
    clock[0] += 18
    console.log(20, LOGS)
    console.evaluated(20, {"eval_loss": 1.5})
    console.advance(21)
    console.stop()
    console.stop()
    text = out.getvalue()
    assert "step 20/300  loss" not in text
    assert "step 20/300  eval: loss 1.5" in text
    last = rich.text.Text.from_ansi(text.replace("\r", "\n")).plain.strip().splitlines()[-1]
    assert last == "━╺" + "━" * 14 + "  21/300 3:59 left loss 1.234  lr 1.9e-05  …"


def test_a_bar_can_be_declined(clock):
    console, out = make(terminal=True, live=False)
    console.start(300)
    console.log(20, {"loss": 1.0})
    assert out.getvalue() == "step 20/300  loss 1  2.1 GB  0:00 left\n"


def test_memory_is_what_this_process_holds():
    before = memory_bytes()
    ballast = mmap(-1, 50_000_000)  # new pages: an allocator may have some in hand
    for place in range(0, 50_000_000, 4096):
        ballast[place] = 1
    assert 40_000_000 < memory_bytes() - before < 80_000_000
