"""What is printed of two runs."""

import json

from bench import table
from tests.bench.test_page import SFT, figure


def test_two_runs(tmp_path, capsys):
    """CPU seconds 2.0 (1.9–2.1) and 2.6 (2.5–2.7), widened by 0.1 on either side, reach 2.2 and 2.4: they differ. The rest is the same."""
    for name, seconds in (("first", figure(2.0, 1.9, 2.1)), ("second", figure(2.6, 2.5, 2.7))):
        record = json.loads(json.dumps(SFT))
        record["cases"][0]["summary"]["sides"]["ours"]["cpu_s"] = seconds
        (tmp_path / name).mkdir()
        (tmp_path / name / "sft.json").write_text(json.dumps(record))
    table.show(tmp_path / "second", tmp_path / "first", ["sft"])
    said = capsys.readouterr().out
    (line,) = (line for line in said.splitlines() if line.split()[:3] == ["ours", "CPU", "s"])
    assert line.split()[3:] == ["2.60", "(2.50–2.70)", "2.00", "(1.90–2.10)", "DIFFERS"]
    assert "beside" in said
    assert said.strip().endswith("5 figures the same, 1 that differ")


def test_what_is_not_compared():
    """Seconds of another processor, and anything of another form."""
    elsewhere = SFT | {"machine": SFT["machine"] | {"processor": "Another"}}
    measures = {key[2] for key in table.comparable(elsewhere, SFT)}
    assert measures == {"× cpu_s", "× peak_bytes", "peak_bytes"}
    for other in ({"short": False}, {"onednn": True}, {"steps": 2}, {"model": "another"}):
        assert table.comparable(SFT, SFT | {"options": SFT["options"] | other}) == {}
    assert len(table.comparable(SFT, SFT | {"options": SFT["options"] | {"rounds": 7}})) == 6
    assert table.comparable(SFT, None) == {}
