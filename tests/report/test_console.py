import io
import math
import os
import re
import select
from mmap import mmap
from pathlib import Path
from types import SimpleNamespace

import pytest
import rich.console
import rich.text

from burnish.report import clock as clock_module
from burnish.report import console as console_module
from burnish.report.console import Console, memory_bytes
from burnish.report.live import draw


@pytest.fixture
def clock(monkeypatch):
    """Seconds, moved by hand; 2.1 GB of memory."""
    now = [100.0]
    monkeypatch.setattr(clock_module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(console_module, "memory_bytes", lambda: 2_100_000_000)
    return now


def make(terminal=False, **options):
    out = io.StringIO()
    shown = rich.console.Console(file=out, width=60, force_terminal=terminal, _environ={})
    return Console(console=shown, **{"live": terminal, **options}), out


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


def screen(text):
    """What is left on a terminal: rich takes a line away by going up one and erasing it."""
    lines = [""]
    for token in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|[^\x1b]", text):
        if token == "\n":
            lines.append("")
        elif token == "\r":
            pass
        elif token == "\x1b[1A":
            lines.pop()
        elif token == "\x1b[2K":
            lines[-1] = ""
        elif len(token) == 1:
            lines[-1] += token
    return "\n".join(lines)


def frame(console, width=80):
    shown = rich.console.Console(width=width, file=io.StringIO(), force_terminal=True, record=True, _environ={})
    shown.print(draw(console._frame(), shown))
    return [line.rstrip() for line in shown.export_text().splitlines()]


def test_a_terminal_gets_live_lines_and_others_above_them(clock):
    """280 steps at 18 s / 20 each: 252 s. One step later, at once done, 279 × 18 / 21 = 239 s."""
    console, out = make(terminal=True)
    console.stop()
    console.start(300)
    clock[0] += 18
    console.log(20, LOGS)
    console.evaluated(20, {"eval_loss": 1.5})
    console.advance(21)
    assert frame(console) == [
        "━╺━━━━━━━━━━━━━━  21/300  3:59 left",
        "                  loss 1.234  lr 1.9e-05  grad 0.83  1,234 tok/s  61% trained",
        "                  2.1 GB",
    ]
    console.stop()
    console.stop()
    assert "3:59 left" in out.getvalue()
    assert screen(out.getvalue()).strip() == "step 20/300  eval: loss 1.5", "live lines leave nothing behind"


def test_what_a_long_step_is_at(clock):
    """Two steps of 66 s; in the third 40 s are gone: 58 × 66 - 40 = 3,788 s."""
    console, _ = make(terminal=True)
    console.start(60)
    assert frame(console) == ["━━━━━━━━━━━━━━━━  0/60  first step"]
    clock[0] += 3
    assert frame(console) == ["━━━━━━━━━━━━━━━━  0/60  first step  0:03"]
    for step in (1, 2):
        console.phase("sampling", 0, 1192)
        clock[0] += 66 - 3 * (step == 1)
        console.advance(step)
    console.phase("training")
    console.phase("sampling", 0, 1192)
    clock[0] += 40
    console.phase("sampling", 1101, 1192)
    assert frame(console)[0] == "╸━━━━━━━━━━━━━━━  2/60  1:03:08 left  sampling 1,101/1,192  0:40"
    assert frame(console, width=59) == ["2/60  1:03:08 left  sampling 1,101/1,192  0:40"]
    assert frame(console, width=30) == ["2/60  1:03:08 left  sampling …"]
    console.stop()


def test_an_evaluation_and_a_checkpoint_show_how_far_they_are(clock):
    console, _ = make(terminal=True)
    console.start(10)
    clock[0] += 1
    console.advance(1)
    parts = console.evaluating("eval_chat", lambda: [SimpleNamespace(group_ids=("a", "b", "c"))] * 2, 5)
    next(parts)
    assert frame(console)[0].endswith("1/10  0:09 left  evaluating eval_chat 0/5")
    next(parts)
    clock[0] += 2
    assert frame(console)[0].endswith("1/10  0:09 left  evaluating eval_chat 3/5  0:02"), "the time left stands still"
    assert list(parts) == []
    console.phase("sampling", 3, 64)
    assert frame(console)[0].endswith("evaluating eval_chat sampling 3/64  0:02")
    console.evaluated(1, {"eval_chat_loss": 1.0}, "eval_chat")
    with console.aside("saving"):
        assert frame(console)[0].endswith("  saving")
    assert not frame(console)[0].endswith("  saving")
    console.stop()


def test_figures_that_do_not_fit_are_left_out_and_none_is_cut(clock):
    console, _ = make(terminal=True)
    console.start(60)
    rollouts = {"reward": 0.8073, "reward_stderr": 0.063, "frac_groups_with_signal": 0.3, "kl": 0.01, "entropy": 0.0435, "loss": 0.0021}
    rollouts |= {"completions/mean_length": 96.2, "completions/clipped_ratio": 0.03, "sampling_tokens_per_second": 6252.0}
    console.log(1, {**rollouts, "reward": 0.4})
    console.log(2, {**rollouts, "reward": math.nan})
    console.log(3, rollouts)
    assert frame(console)[1:] == [
        "▁ █               reward 0.807 ± 0.063  signal 30%  kl 0.01  entropy 0.0435",
        "                  96 tokens  3% cut off  6,252 tok/s sampled  loss 0.0021",
    ]
    assert frame(console, width=40)[1:] == ["reward 0.807 ± 0.063  signal 30%", "kl 0.01  entropy 0.0435  96 tokens"]
    console.stop()


def test_what_a_run_came_to(clock):
    """Two steps of 10 s, 2 × 5 s of evaluation, 1 s of saving: 31 s."""
    console, out = make()
    console.start(2)
    for step, (loss, accuracy) in enumerate([(2.0, 0.25), (1.0, 0.75)], start=1):
        console.phase("sampling", 1, 2)
        clock[0] += 7
        console.phase("training")
        clock[0] += 3
        console.log(step, {"reward": accuracy, "reward_stderr": 0.125, "loss": loss, "entropy": 0.5, "num_tokens": 600 * step})
        list(console.evaluating("eval", lambda: [], 5))
        clock[0] += 5
        console.evaluated(step, {"eval_accuracy": accuracy, "eval_accuracy_stderr": 0.1, "eval_runtime": 5.0})
    with console.aside("saving"):
        clock[0] += 1
    assert console.beside == 11
    out.truncate(0)
    console.conclude(Path("runs/sums"))
    assert out.getvalue().lstrip("\0") == (
        "Done: 2 steps and 1,200 tokens in 0:31, in runs/sums.\n"
        "  time      sampling 0:14  evaluation 0:10  training 0:06\n"
        "            saving 0:01\n"
        "  training  reward 0.25 → 0.75 ± 0.12  entropy 0.5 → 0.5\n"
        "  eval      accuracy 0.25 → 0.75 ± 0.1\n"
    )


def test_steps_that_sample_nothing_do_not_change_what_is_shown(clock):
    """A sampling for two steps: of the second there is no reward, and the first one's stays."""
    console, out = make()
    console.start(2)
    console.log(1, {"reward": 0.5, "reward_stderr": 0.125, "loss": 1.0})
    console.log(2, {"loss": 2.0})
    assert out.getvalue() == "step 1/2  reward 0.5 ± 0.12  loss 1  2.1 GB  0:00 left\nstep 2/2  loss 2  2.1 GB\n"
    assert frame(console)[1:] == ["                  reward 0.5 ± 0.12  loss 2  2.1 GB"]
    out.truncate(0)
    console.conclude(Path("x"))
    assert out.getvalue().lstrip("\0").splitlines()[1:] == ["  training  reward 0.5 → 0.5 ± 0.12"]


def test_a_run_that_is_cut_short_or_continued(clock):
    console, out = make()
    console.start(5, 3)
    clock[0] += 1
    console.log(4, {"loss": 1.0, "nll": 1.0})
    console.evaluated(4, {"eval_loss": 1.0, "eval_nll": 1.0})
    out.truncate(0)
    console.conclude(Path("x"))
    assert out.getvalue().lstrip("\0") == (
        "Done: 4 of 5 steps (1 of them now) in 0:01, in x.\n  time      training 0:01\n  training  loss 1\n  eval      loss 1\n"
    )


@pytest.mark.parametrize("terminal", [True, False])
def test_quiet_says_warnings_and_the_closing_line(clock, terminal):
    console, out = make(terminal=terminal, quiet=True)
    console.start(1)
    console.message("Memory: enough.", "One example:")
    console.console.print("a table")
    console.log(1, LOGS)
    console.evaluated(1, {"eval_loss": 1.0})
    console.warn("[bold] tracker failed.", "Another.")
    console.conclude(Path("x"))
    console.stop()
    wanted = "[bold] tracker failed.\nAnother.\nDone: 1 step in 0:00, in x.\n"
    assert rich.text.Text.from_ansi(out.getvalue()).plain == wanted
    assert terminal or out.getvalue() == wanted


def test_standard_errors_stand_behind_their_metric(clock):
    console, out = make()
    console.start(3)
    console.log(3, {"reward": 0.5, "entropy": 0.25, "reward_stderr": 0.125})
    console.evaluated(3, {"eval_reward": 0.5, "eval_reward_stderr": 0.125, "eval_accuracy": 1.0})
    assert out.getvalue() == "step 3/3  reward 0.5 ± 0.12  entropy 0.25  2.1 GB\nstep 3/3  eval: reward 0.5 ± 0.12  accuracy 1\n"


def test_a_real_terminal_is_drawn_on_while_a_step_goes_on():
    """A pseudo-terminal, on which rich's own thread draws: what was said last is there, and is gone when the run is over."""
    ours, theirs = os.openpty()
    with os.fdopen(theirs, "w") as file:
        console = Console(console=rich.console.Console(file=file, _environ={"TERM": "xterm", "COLUMNS": "80"}))
        seen = b""

        def read_until(wanted):
            nonlocal seen
            while wanted not in seen:
                assert select.select([ours], [], [], 20)[0], f"{wanted} is not drawn: {seen}"
                seen += os.read(ours, 65536)

        console.start(60)
        console.phase("sampling", 37, 64)
        read_until(b"sampling 37/64")
        console.warn("A tracker failed.")
        read_until(b"A tracker failed.")
        console.stop()
        console.message("The end.")
        read_until(b"The end.")
    os.close(ours)
    assert screen(seen.decode()).split("\n") == ["A tracker failed.", "The end.", ""]


@pytest.mark.parametrize("environment", [{"FORCE_COLOR": "1"}, {"TTY_COMPATIBLE": "1"}, {}])
def test_a_log_is_no_terminal_whatever_the_environment_says(clock, environment):
    out = io.StringIO()
    console = Console(console=rich.console.Console(file=out, width=60, _environ=environment))
    console.start(300)
    console.log(20, {"loss": 1.0})
    console.stop()
    assert rich.text.Text.from_ansi(out.getvalue()).plain == "step 20/300  loss 1  2.1 GB  0:00 left\n"


def test_a_dumb_terminal_gets_lines():
    ours, theirs = os.openpty()
    with os.fdopen(theirs, "w") as file:
        console = Console(console=rich.console.Console(file=file, _environ={"TERM": "dumb"}))
        console.start(300)
        console.log(20, {"loss": 1.0})
        console.stop()
        assert os.read(ours, 65536).startswith(b"step 20/300  loss 1  ")
    os.close(ours)


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
