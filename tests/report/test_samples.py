"""Everything that was sampled, on disk: files of a size, cut where a checkpoint was written, read to the last whole line."""

import gzip
import io

import numpy as np
import pytest
import rich.console

from burnish.report.metrics import MetricsError
from burnish.report.samples import SampleFiles, read_samples, show_samples


def lines(step, count=2):
    return [{"step": step, "sample": i, "completion": f"ä{step}", "tokens": np.arange(3)} for i in range(count)]


def read(folder):
    return [(line["step"], line["sample"]) for line in read_samples(folder)]


def test_written_and_read(tmp_path):
    files = SampleFiles(tmp_path)
    for step in range(3):
        files.append(lines(step))
    assert read(tmp_path) == [(step, i) for step in range(3) for i in range(2)]
    assert next(read_samples(tmp_path)) == {"step": 0, "sample": 0, "completion": "ä0", "tokens": [0, 1, 2]}
    assert files.place == (0, (tmp_path / "samples" / "00000.jsonl.gz").stat().st_size)


def test_a_file_that_is_full_is_followed_by_another(tmp_path):
    """Two members of about 90 bytes do not fit in 120."""
    files = SampleFiles(tmp_path, largest=120)
    for step in range(3):
        files.append(lines(step))
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == [f"0000{i}.jsonl.gz" for i in range(3)]
    assert read(tmp_path) == [(step, i) for step in range(3) for i in range(2)]
    assert files.place[0] == 2


def test_one_that_is_larger_than_a_file_is_written_whole(tmp_path):
    files = SampleFiles(tmp_path, largest=10)
    files.append(lines(0, count=50))
    files.append(lines(1))
    assert len(read(tmp_path)) == 52
    assert files.place[0] == 1


def test_cut_where_a_checkpoint_was_written(tmp_path):
    """In an earlier file, too: the later ones are gone, and what is appended then is what there is."""
    files, places = SampleFiles(tmp_path, largest=200), []
    for step in range(6):
        places.append(files.place)
        files.append(lines(step))
    assert files.place[0] >= 2
    before = {path.name: path.read_bytes() for path in (tmp_path / "samples").iterdir()}
    again = SampleFiles(tmp_path, largest=200)
    again.cut(places[2])
    assert read(tmp_path) == [(step, i) for step in range(2) for i in range(2)]
    for step in range(2, 6):
        again.append(lines(step))
    assert {path.name: path.read_bytes() for path in (tmp_path / "samples").iterdir()} == before, "the same bytes: no clock is in them"
    again.cut((0, 0))
    assert read(tmp_path) == []


def test_a_torn_last_member_is_left_out(tmp_path):
    files = SampleFiles(tmp_path)
    files.append(lines(0))
    whole = files.place
    files.append(lines(1))
    path = tmp_path / "samples" / "00000.jsonl.gz"
    for lost in (1, 9, 30):
        path.write_bytes(path.read_bytes()[:-lost])
        assert read(tmp_path)[:2] == [(0, 0), (0, 1)]
        assert all(step in (0, 1) for step, _ in read(tmp_path))
    again = SampleFiles(tmp_path)
    again.cut(whole)
    again.append(lines(7))
    assert read(tmp_path) == [(0, 0), (0, 1), (7, 0), (7, 1)]


@pytest.mark.parametrize("tail", [b"\x1f", b"\0" * 9, b"\x1f\x8b\x08", b"no gzip"])
def test_a_damaged_end_does_not_hide_the_next_file(tmp_path, tail):
    files = SampleFiles(tmp_path)
    files.append(lines(0))
    files.place = (1, 0)
    files.append(lines(1))
    with (tmp_path / "samples" / "00000.jsonl.gz").open("ab") as file:
        file.write(tail)
    assert read(tmp_path) == [(step, i) for step in range(2) for i in range(2)]


def test_half_a_character_is_kept(tmp_path):
    """Of a pair of surrogates, as a reward may log it; it is no Unicode text, and JSON can say it."""
    SampleFiles(tmp_path).append([{"step": 0, "extras": {"said": "\ud83d ä"}}])
    assert next(read_samples(tmp_path))["extras"] == {"said": "\ud83d ä"}


@pytest.mark.parametrize("text", ["[/INST] [bold]x", ":heart: \\[x]", "\x1b[2Jgone", "a\nb", "\ud83d"])
def test_what_was_said_is_shown_as_it_is(text):
    """Neither markup nor an emoji, and nothing that a terminal obeys: control characters are escaped."""
    console = rich.console.Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    group = {"group": "rows:0", "reward": 1.0, "advantage": None, "prompt": text, "completion": [{"role": "assistant", "content": text}]}
    show_samples([group], console, 1)
    said = console.file.getvalue()
    wanted = {"\x1b[2Jgone": "\\x1b[2Jgone", "a\nb": "a⏎", "\ud83d": "\\ud83d"}.get(text, text)
    assert said.splitlines()[0].startswith(wanted)
    assert f"assistant: {wanted}" in said
    assert "\x1b[2J" not in said
    said.encode()


def test_samples_that_are_gone(tmp_path):
    files = SampleFiles(tmp_path)
    files.append(lines(0))
    path = tmp_path / "samples" / "00000.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-1])
    said = rf"^{path} has {files.place[1] - 1} bytes, and the checkpoint was written when it had {files.place[1]}; put the original back\.$"
    with pytest.raises(MetricsError, match=said):
        SampleFiles(tmp_path).cut(files.place)
    path.unlink()
    with pytest.raises(MetricsError, match=" has 0 bytes, "):
        SampleFiles(tmp_path).cut(files.place)


def test_no_room(tmp_path):
    (tmp_path / "samples").write_text("a file where the folder should be")
    with pytest.raises(MetricsError, match="cannot be written"):
        SampleFiles(tmp_path).append(lines(0))


def test_nothing_was_sampled(tmp_path):
    assert read(tmp_path) == []
    SampleFiles(tmp_path).cut((0, 0))
    assert not list(tmp_path.iterdir())


def test_plain_gzip_reads_it(tmp_path):
    SampleFiles(tmp_path).append(lines(0))
    with gzip.open(tmp_path / "samples" / "00000.jsonl.gz", "rt", encoding="utf-8") as file:
        assert file.read().count("\n") == 2
