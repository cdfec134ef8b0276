"""The page, its drawings and the README's table, from small files; and that the project's own are what its files give."""

import json
import xml.etree.ElementTree as ElementTree

import pytest
from bench.arithmetic import Spread
from bench.figures import number, slope, with_range
from bench.plots import drawn

from bench import page

HEAD = {
    "command": "python -m bench --short",
    "date": "2026-01-02 03:04 UTC",
    "commit": "abc",
    "machine": {"processor": "A processor", "cores": 2, "memory_bytes": 8 * 2**30, "system": "Linux x86_64"},
    "load_before": 0.1,
    "load_after": 1.2,
    "options": {"model": "m", "short": True, "steps": 1, "threads": 1, "compute_dtype": "float32", "onednn": False},
    "versions": {".venv": {"python": "3.11", "torch": "2.13"}},
}


def figure(median, low, high):
    return {"median": median, "low": low, "high": high, "count": 3}


SFT = HEAD | {
    "suite": "sft",
    "cases": [
        {
            "name": "sft",
            "title": "SFT",
            "about": "Two rows.",
            "shown": ["cpu_s", "peak_bytes"],
            "same": "loss",
            "growth": {},
            "axis": "",
            "sides": {"ours": {"turns": [1, 2, 3]}, "TRL": {"turns": [1, 2, 3]}, "other": {"turns": [], "failed": "no memory"}},
            "summary": {
                "sides": {
                    "ours": {"cpu_s": figure(2.0, 1.9, 2.1), "peak_bytes": figure(3e9, 3e9, 3e9)},
                    "TRL": {"cpu_s": figure(5.0, 4.0, 6.0), "peak_bytes": figure(6e9, 6e9, 6e9)},
                    "other": {},
                },
                "ratios": {"TRL": {"cpu_s": figure(2.5, 2.4, 2.7), "peak_bytes": figure(2.0, 2.0, 2.0)}, "other": {}},
                "difference": 2e-6,
                "share_of_peak": {"default": figure(0.613, 0.6, 0.62)},
            },
        }
    ],
}
GROWTH = HEAD | {
    "suite": "growth",
    "cases": [
        {
            "name": "head-tokens",
            "title": "trained tokens",
            "about": "The head.",
            "shown": ["extra_bytes"],
            "same": "",
            "growth": {"extra_bytes": 0.0, "cpu_s": 1.0},
            "axis": "trained tokens",
            "sides": {},
            "summary": {
                "points": {"extra_bytes": [{"x": 256, **figure(70e6, 69e6, 71e6)}, {"x": 4096, **figure(77e6, 77e6, 77e6)}], "cpu_s": []},
                "exponents": {"extra_bytes": figure(0.034, 0.031, 0.04), "cpu_s": None},
            },
        }
    ],
}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.0, "0"),
        (0.00825, "0.00825"),
        (0.9999, "1.00"),
        (9.999, "10.0"),
        (15.94, "15.9"),
        (233.4, "233"),
        (12345.6, "12,346"),
        (-0.5, "-0.500"),
    ],
)
def test_numbers_have_three_digits(value, said):
    assert number(value) == said


def test_ranges_that_say_nothing_are_left_out():
    one = Spread(median=2e9, low=2e9, high=2.0001e9, count=3)
    assert with_range(one, 1e9) == "2.00"
    assert with_range(Spread(median=0.5, low=0.25, high=1.0, count=3)) == "0.500 (0.250–1.00)"
    assert with_range(Spread(median=0.034, low=0.031, high=0.04, count=3), said=slope) == "0.03 (0.03–0.04)"


def test_a_section():
    made = page.page({"sft": SFT})
    assert "| ours | 2.00 (1.90–2.10) | 3.00 | 3 |\n" in made
    assert "| TRL | 5.00, **× 2.50 (2.40–2.70)** | 6.00, **× 2.00** | 3 |\n" in made
    assert "| other | failed | failed | 0 |\n" in made
    assert "the losses of the first measured step of all sides differ by 2e-06 at most." in made
    assert "61% of it as PyTorch multiplies" in made
    assert (
        "`python -m bench --short`, 2026-01-02 03:04 UTC, commit abc; one thread, float32; load of the machine 0.1 before and 1.2 after"
        in made
    )
    assert made.count("A processor, 2 cores, 8 GiB") == 1


def test_the_growth_section():
    """77 / 70 = 1.1. A curve without points failed, and has no drawing."""
    made = page.page({"growth": GROWTH})
    assert "| trained tokens | MB | 256 | 4,096 | 70.0 to 77.0 | 1.10 | 0.03 (0.03–0.04) | 0 |\n" in made
    assert "| trained tokens | CPU s | failed | failed | failed | failed | failed | 1 |\n" in made
    assert "(curves/growth_head_tokens_extra_bytes.svg)" in made
    assert "growth_head_tokens_cpu_s" not in made


def test_a_drawing():
    """From 10 to 1,000 a cost that grows from 1 to 100: the broken line of slope 1 lies on the measured one, and of slope 0 it is level."""
    points = [{"x": x, **figure(x / 10, x / 10, x / 10)} for x in (10, 100, 1000)]
    lines = [ElementTree.fromstring(drawn(points, slope, "rows", "CPU s", 1.0)).findall("{*}polyline") for slope in (1.0, 0.0)]
    (expected, measured), (level, _) = lines
    assert expected.get("points") == measured.get("points")
    assert len({point.split(",")[1] for point in level.get("points").split()}) == 1


@pytest.fixture
def root(tmp_path):
    (tmp_path / "bench/results").mkdir(parents=True)
    (tmp_path / "docs/curves").mkdir(parents=True)
    (tmp_path / "README.md").write_text("before\n<!-- measured: make bench-page -->\nold\n<!-- end of measured -->\nafter\n")
    for record in (SFT, GROWTH):
        (tmp_path / f"bench/results/{record['suite']}.json").write_text(json.dumps(record))
    return tmp_path


def test_what_is_stale_is_found_and_written(root, capsys):
    assert page.main(["--root", str(root)]) == 1
    assert "docs/benchmarks.md: is not what bench/results gives" in capsys.readouterr().out
    (root / "docs/curves/growth_old.svg").write_text("left over")
    (root / "docs/curves/other.svg").write_text("of another page")
    assert page.main(["--root", str(root), "--record"]) == 0
    assert page.main(["--root", str(root)]) == 0
    assert sorted(file.name for file in (root / "docs/curves").iterdir()) == ["growth_head_tokens_extra_bytes.svg", "other.svg"]
    readme = (root / "README.md").read_text()
    assert readme.startswith("before\n")
    assert "\n| SFT: TRL | 2.50 (2.40–2.70)× | 2.00× |\n" in readme
    assert "old" not in readme
    (root / "docs/benchmarks.md").write_text((root / "docs/benchmarks.md").read_text().replace("2.50", "3.50"))
    assert page.main(["--root", str(root)]) == 1


def test_files_of_a_run_are_taken(root, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "sft.json").write_text(json.dumps(SFT | {"date": "2027-01-01 00:00 UTC"}))
    assert page.main(["--root", str(root), "--take", str(run)]) == 0
    assert "2027-01-01" in (root / "docs/benchmarks.md").read_text()


def test_a_folder_without_a_run_is_refused(root, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/other.json").write_text("{}")
    with pytest.raises(SystemExit, match=r"empty: holds none of sft.json, .*; run `make bench` first\.$"):
        page.main(["--root", str(root), "--take", str(tmp_path / "empty")])
    assert not (root / "docs/benchmarks.md").exists()


def test_a_readme_without_marks_is_refused(root):
    (root / "README.md").write_text("nothing")
    with pytest.raises(SystemExit, match="put them back"):
        page.main(["--root", str(root)])


def test_the_projects_own_page_is_what_its_files_give():
    assert page.main([]) == 0
