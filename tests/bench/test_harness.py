"""Turns, records and what is made of them; the subjects are commands that take no time."""

import json
import math
import sys
from pathlib import Path

import pytest
from bench.harness import Bench, Case, Options, Side, difference, summary, take_turn
from bench.processes import TurnError, ask, environment, timed, usable

from bench import harness


def options(folder, **changes):
    given = {"short": True, "rounds": 2, "steps": 1, "threads": 1, "minutes": None, "compute_dtype": "float32", "onednn": False}
    paths = {"model": Path("model"), "trl_python": Path("none"), "vllm_python": Path("none"), "output": folder}
    return Options(**{**given, **paths, **changes})


def command(name, code, **more):
    return Side(name=name, command=(sys.executable, "-S", "-c", code), **more)


def test_what_a_process_took():
    """It burns 0.2 s of processor time and holds 40 MB more than one that does nothing."""
    busy = "import time\nheld = b'1' * 40_000_000\nwhile time.process_time() < 0.2: pass"
    idle, _ = timed([sys.executable, "-S", "-c", "pass"], 1)
    taken, said = timed([sys.executable, "-S", "-c", busy + "\nprint('done')"], 1)
    assert said == "done\n"
    assert 0.2 <= taken.cpu_s < 0.4
    assert taken.wall_s >= taken.cpu_s * 0.9
    assert 38e6 < taken.peak_bytes - idle.peak_bytes < 60e6


def test_a_process_that_fails_is_told_with_its_last_lines():
    with pytest.raises(TurnError, match=r"(?s)no such thing.*ended with status 3"):
        timed([sys.executable, "-S", "-c", "print('no such thing'); raise SystemExit(3)"], 1)
    assert timed([sys.executable, "-S", "-c", "raise SystemExit(3)"], 1, status=3)[0].wall_s > 0


def test_a_subject_is_asked():
    (first, second), _ = ask("versions", [{}, {}])
    assert first == second
    assert first["facts"]["python"] == sys.version.split()[0]


def test_no_subject_sees_a_gpu(monkeypatch, tmp_path):
    """Whatever its caller sees; and what it leaves in the folder for temporary files goes with its caller's."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    said = "import os, tempfile\nprint(repr(os.environ['CUDA_VISIBLE_DEVICES']), tempfile.gettempdir(), os.environ['OMP_NUM_THREADS'])"
    assert timed([sys.executable, "-c", said], 3)[1] == f"'' {tmp_path} 3\n"
    assert environment(1)["CUDA_VISIBLE_DEVICES"] == ""


def test_a_half_made_environment_is_not_there(tmp_path):
    """`make` touches `ready` when it is done. One of another name is the user's own."""
    for name in (".venv-vllm", "own"):
        (tmp_path / name / "bin").mkdir(parents=True)
        (tmp_path / name / "bin/python").touch()
    python = tmp_path / ".venv-vllm/bin/python"
    assert not usable(python)
    assert usable(tmp_path / "own/bin/python")
    (tmp_path / ".venv-vllm/ready").touch()
    assert usable(python)
    python.unlink()
    assert not usable(python)


def test_repeats_of_a_command_are_one_value():
    turn = take_turn(command("ours", "pass", repeats=3), 1)
    assert [len(values) for values in turn["measures"].values()] == [1, 1, 1]


def test_a_run(tmp_path):
    """Two rounds of two cases: the sides' turns by round, a failed side is told and costs no other."""
    shown = ("cpu_s", "wall_s", "peak_bytes")
    good = Case(name="good", title="good", about="", sides=(command("ours", "pass"), command("theirs", "pass")), shown=shown)
    bad = Case(name="bad", title="bad", about="", sides=(command("ours", "pass"), command("theirs", "oops")), shown=shown, rounds=1)
    bench = Bench({"start": [good, bad]}, options(tmp_path))
    bench.run()
    record = json.loads((tmp_path / "start.json").read_text())
    first, second = record["cases"]
    assert [turn["round"] for turn in first["sides"]["theirs"]["turns"]] == [1, 2]
    assert set(first["summary"]["ratios"]["theirs"]) == set(shown)
    assert first["summary"]["ratios"]["theirs"]["wall_s"]["count"] == 2
    assert len(second["sides"]["ours"]["turns"]) == 1
    assert "NameError" in second["sides"]["theirs"]["failed"]
    assert len(bench.failed) == 1
    assert record["options"]["rounds"] == 2
    assert record["machine"]["cores"] >= 1


def test_every_side_starts_once_unmeasured(tmp_path):
    """It leaves a byte each time: 1 + 2 in the first round and 2 in the second, of which two medians are measured."""
    counted = tmp_path / "counted"
    side = command("ours", f"open({str(counted)!r}, 'a').write('.')", repeats=2)
    Bench({"start": [Case(name="a", title="a", about="", sides=(side,), shown=("cpu_s",))]}, options(tmp_path)).run()
    assert counted.read_text() == "....."
    record = json.loads((tmp_path / "start.json").read_text())
    assert [len(turn["measures"]["cpu_s"]) for turn in record["cases"][0]["sides"]["ours"]["turns"]] == [1, 1]
    assert not list(tmp_path.glob("*.tmp"))


def test_a_command_s_interpreter_is_asked_for_its_versions(tmp_path):
    side = command("ours", "pass")
    record = Bench({"start": [Case(name="a", title="a", about="", sides=(side,), shown=())]}, options(tmp_path))._records["start"]
    assert record["versions"][Path(sys.executable).parts[-3]]["python"] == sys.version.split()[0]


def answering(answers):
    """For `ask`: the answers by subject, or a failure."""

    def ask(subject, specs, **how):
        if subject not in answers:
            raise TurnError(f"no {subject} here")
        return [answers[subject]], harness.Taken(cpu_s=1.0, wall_s=1.0, peak_bytes=1)

    return ask


def test_what_is_asked_beside_the_sides_may_fail(tmp_path, monkeypatch):
    """No versions and no product: told, and the turn is there; the share of the peak is not."""
    monkeypatch.setattr(harness, "ask", answering({"training": {"measures": {"cpu_s": [2.0]}, "facts": {}}}))
    case = Case(name="a", title="a", about="", sides=(Side(name="ours", subject="training"),), shown=("cpu_s",), work=lambda facts: [100.0])
    bench = Bench({"sft": [case]}, options(tmp_path, rounds=1))
    bench.run()
    assert bench.failed == ["sft: versions: no versions here", "sft: matmul: no matmul here"]
    assert json.loads((tmp_path / "sft.json").read_text())["cases"][0]["summary"]["share_of_peak"] == {}


def test_the_product_is_measured_beside_the_turn(tmp_path, monkeypatch):
    """100 in 2 s are 50 a second, of 200: a quarter."""
    answers = {"training": {"measures": {"cpu_s": [2.0]}, "facts": {}}, "matmul": {"measures": {"default": [200.0]}, "facts": {}}}
    monkeypatch.setattr(harness, "ask", answering(answers | {"versions": {"measures": {}, "facts": {}}}))
    case = Case(name="a", title="a", about="", sides=(Side(name="ours", subject="training"),), shown=("cpu_s",), work=lambda facts: [100.0])
    Bench({"sft": [case]}, options(tmp_path, rounds=1)).run()
    assert json.loads((tmp_path / "sft.json").read_text())["cases"][0]["summary"]["share_of_peak"]["default"]["median"] == 0.25


def test_a_cost_that_was_lost_in_noise_is_told_and_ends_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "ask", answering({"curves": {"measures": {"cpu_s": [1.0, -0.5]}, "facts": {}}, "versions": {"facts": {}}}))
    side = Side(name="a", subject="curves", x=(1.0, 2.0))
    case = Case(name="a", title="a", about="", sides=(side,), shown=(), growth={"cpu_s": 1.0})
    bench = Bench({"growth": [case]}, options(tmp_path, rounds=1))
    bench.run()
    assert bench.failed == ["growth: a: a: cpu_s is 1, -0.5: a cost of 0 or less was lost in noise; measure again on a quiet machine."]
    assert json.loads((tmp_path / "growth.json").read_text())["cases"][0]["summary"]["points"] == {"cpu_s": []}


def test_no_round_begins_that_would_not_end_in_time(tmp_path):
    case = Case(name="good", title="good", about="", sides=(command("ours", "import time; time.sleep(0.3)"),), shown=("cpu_s",))
    Bench({"start": [case]}, options(tmp_path, rounds=4, minutes=0.5 / 60)).run()
    turns = json.loads((tmp_path / "start.json").read_text())["cases"][0]["sides"]["ours"]["turns"]
    assert len(turns) == 1


def record_of(turns, **more):
    """A case's record: `turns` are measures by side and round."""
    sides = {name: {"x": [], "turns": [{"round": i, **one} for i, one in enumerate(rounds, 1)]} for name, rounds in turns.items()}
    return {"name": "a", "title": "a", "shown": ["cpu_s"], "same": "", "growth": {}, "sides": sides} | more


def test_summary():
    """Ours 2 s and 4 s, theirs 3 s and 8 s: ratios 1.5 and 2, median 1.75. Ours does 100 and 200 in them with two threads: 100 and 100 a
    second, of 400 and 500 a second that the matrix product reached in its round: 0.25 and 0.2."""
    ours = [
        {"measures": {"cpu_s": [2.0], "flop": [100.0]}, "facts": {"matmul_flops": {"default": 400.0}}},
        {"measures": {"cpu_s": [4.0], "flop": [200.0]}, "facts": {"matmul_flops": {"default": 500.0}}},
    ]
    theirs = [{"measures": {"cpu_s": [3.0]}, "facts": {}}, {"measures": {"cpu_s": [8.0]}, "facts": {}}]
    found = summary(record_of({"ours": ours, "theirs": theirs}), threads=2)
    assert found["ratios"]["theirs"]["cpu_s"] == {"median": 1.75, "low": 1.5, "high": 2.0, "count": 2}
    assert found["share_of_peak"]["default"] == pytest.approx({"median": 0.225, "low": 0.2, "high": 0.25, "count": 2})
    assert found["sides"]["ours"]["cpu_s"]["median"] == 3.0


def test_a_round_that_one_side_lacks_is_no_pair():
    ours = [{"measures": {"cpu_s": [2.0]}, "facts": {}}, {"measures": {"cpu_s": [1.0]}, "facts": {}}]
    found = summary(record_of({"ours": ours, "theirs": [{"measures": {"cpu_s": [3.0]}, "facts": {}}]}), threads=1)
    assert found["ratios"]["theirs"]["cpu_s"] == {"median": 1.5, "low": 1.5, "high": 1.5, "count": 1}


def test_points_of_a_curve_from_several_processes():
    """Round 1: 1, 2, 4 at 1, 2, 4, exponent 1. Round 2: 1, 2, 8, exponent 1.5 (see test_arithmetic). At 4 the median is 6."""
    case = record_of({}, growth={"cpu_s": 1.0})
    for x, values in ((1, (1.0, 1.0)), (2, (2.0, 2.0)), (4, (4.0, 8.0))):
        turns = [{"round": i, "measures": {"cpu_s": [value]}} for i, value in enumerate(values, 1)]
        case["sides"][str(x)] = {"x": [x], "turns": turns}
    found = summary(case, threads=1)
    assert found["exponents"]["cpu_s"] == pytest.approx({"median": 1.25, "low": 1.0, "high": 1.5, "count": 2})
    assert found["points"]["cpu_s"][2] == {"x": 4, "median": 6.0, "low": 4.0, "high": 8.0, "count": 2}


def test_that_all_sides_did_the_same():
    assert difference([2.0, 2.0]) == 0.0
    assert difference([2.0, 1.5]) == 0.25
    assert difference([0.0, 0.0]) == 0.0
    assert difference([2.0, math.nan]) == difference([math.inf, 2.0]) == math.inf
    assert difference(["a", "a", "a"]) == 0.0
    assert difference(["a", "b"]) == 1.0


def test_a_side_without_a_turn_is_not_compared():
    ours = [{"measures": {"cpu_s": [2.0]}, "facts": {"loss": 1.0}}]
    assert "difference" not in summary(record_of({"ours": ours, "theirs": []}, same="loss"), threads=1)
    assert summary(record_of({"ours": ours, "theirs": ours}, same="loss"), threads=1)["difference"] == 0.0
