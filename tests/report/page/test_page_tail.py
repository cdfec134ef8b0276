"""Files that grow: what is new since a place, and places that are not there any more."""

import gzip

import pytest

from burnish.report.page.tail import Place, lines_since, members_since


def test_lines_come_once_and_torn_ones_later(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2}\n{"st')
    lines, place, anew = lines_since(path, Place())
    assert (lines, anew) == ([{"step": 1}, {"step": 2}], False)
    assert place.offset == 24, "two lines of 12 bytes"
    assert lines_since(path, place)[0] == []
    with path.open("ab") as file:
        file.write(b'ep": 3}\nno json\n[4]\n')
    lines, place, anew = lines_since(path, Place.read(str(place)))
    assert (lines, anew) == ([{"step": 3}], False)
    assert place.offset == path.stat().st_size


@pytest.mark.parametrize("others", [b"", b'{"step": 9}\n', b'{"step": 1}\n{"step": 7}\n{"step": 8}\n'])
def test_a_run_that_was_begun_anew_is_read_anew(tmp_path, others):
    """Whether it has fewer bytes by now, as many or more."""
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2}\n')
    _, place, _ = lines_since(path, Place())
    path.write_bytes(others)
    lines, later, anew = lines_since(path, place)
    assert anew
    assert len(lines) == others.count(b"\n")
    assert later.offset == len(others)


def test_a_file_that_is_not_there_has_nothing_new(tmp_path):
    assert lines_since(tmp_path / "none", Place()) == ([], Place(), False)


def test_whole_members_only(tmp_path):
    """Long ones, so that the last bytes before a place are of one of them; and a short one, before which others count."""
    path, parts = tmp_path / "00000.jsonl.gz", [bytes(range(256)) * 400, b"short", b"last " * 9]
    packed = [gzip.compress(part, mtime=0) for part in parts]
    path.write_bytes(b"".join(packed)[:-3])
    found = list(members_since(path, Place()))
    assert [text for text, _ in found] == parts[:2]
    place = found[-1][1]
    assert place.offset == len(packed[0]) + len(packed[1])
    path.write_bytes(b"".join(packed))
    assert [text for text, _ in members_since(path, place)] == parts[2:]
    assert [text for text, _ in members_since(path, found[0][1])] == parts[1:]


def test_damage_ends_the_file(tmp_path):
    path = tmp_path / "00000.jsonl.gz"
    path.write_bytes(gzip.compress(b"one") + b"not gzip at all" + gzip.compress(b"two"))
    assert [text for text, _ in members_since(path, Place())] == [b"one"]


def test_members_that_are_not_there_any_more(tmp_path):
    path = tmp_path / "00000.jsonl.gz"
    path.write_bytes(gzip.compress(b"one"))
    ((_, place),) = members_since(path, Place())
    path.write_bytes(gzip.compress(b"other, and longer"))
    with pytest.raises(ValueError, match="not what it was"):
        list(members_since(path, place))


@pytest.mark.parametrize("text", ["", "1:2", "a:b:c", "1:2:3:4", "-1:0:0", "0:0:0\n", "9999999:0:0"])
def test_what_is_no_place(text):
    with pytest.raises(ValueError, match="no place in a file"):
        Place.read(text)
