"""Log-probs of a reference on disk: what is known stays known, and what is damaged is never used."""

import logging
import os
import pickle
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import deque
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from burnish.data.known_logps import KnownLogps, example_key, with_logps
from burnish.data.rows import DataError
from burnish.types import Branch, Example, Segment


def segment(ids, trained=True, source="model"):
    return Segment(token_ids=ids, source=source, trained=trained)


def example(prompt=(5, 6), branches=((7, 8), (9,)), name="data:0"):
    return Example(
        group_id=name,
        prompt=(segment(list(prompt), trained=False, source="prompt"),) if prompt else (),
        branches=tuple(Branch(segments=(segment(list(ids)),)) for ids in branches),
    )


def logps_of(key, length=5):
    """Different for every key, and known to the test."""
    return np.frombuffer(key * 2, dtype="<u1")[:length].astype(np.float32) / -7


def items(count, first=0):
    return [(key, logps_of(key)) for key in (i.to_bytes(16, "little") for i in range(first, first + count))]


@pytest.fixture
def known(tmp_path):
    with KnownLogps(tmp_path, "llama float32 temperature 1.0") as one:
        yield one


# What makes two examples the same


def test_the_key_is_the_content():
    """And not the name, the margin, or how the tokens of a branch are cut into segments."""
    one = example()
    key = example_key(one)
    assert (type(key), len(key)) == (bytes, 16)
    assert example_key(replace(one, group_id="data:1", margin=2.0, ref_logp=np.zeros(3))) == key
    cut = Branch(segments=(segment([7]), segment([], trained=False), segment([8], source="tool")), label=True, advantage=1.0)
    assert example_key(replace(one, branches=(cut, one.branches[1]))) == key
    view = np.arange(20, dtype=np.int64)[7:9]
    assert example_key(replace(one, branches=(Branch(segments=(segment(view),)), one.branches[1]))) == key


def test_another_content_is_another_key():
    untrained = Branch(segments=(segment([7]), segment([8], trained=False)))
    first_untrained = Branch(segments=(segment([7], trained=False), segment([8])))
    others = [
        example(),
        example(prompt=(5,), branches=((6, 7, 8), (9,))),
        example(prompt=(5, 6, 7), branches=((8,), (9,))),
        example(branches=((7,), (8, 9))),
        example(branches=((9,), (7, 8))),
        example(branches=((7, 8, 9),)),
        example(branches=((7, 8), (9,), ())),
        example(prompt=()),
        example(prompt=(5, 2**31 - 1)),
        replace(example(), branches=(untrained, example().branches[1])),
        replace(example(), branches=(first_untrained, example().branches[1])),
    ]
    assert len({example_key(one) for one in others}) == len(others)


def test_the_key_stays_what_it_is():
    """What is on disk is found by the next version of this library, too."""
    assert example_key(example()).hex() == "832debb96e1f025a6a55ec7bf10613c6"


# In and out


def test_what_was_added_is_found(known):
    wanted = items(1200)
    assert known.missing([key for key, _ in wanted]) == {key for key, _ in wanted}
    known.add(wanted[:1100])
    assert known.missing(key for key, _ in wanted) == {key for key, _ in wanted[1100:]}
    for key, logp in wanted[:1100]:
        found = known.get(key, 5)
        assert found.dtype == np.float32
        assert np.array_equal(found, logp)
    assert known.missing([]) == set()


def test_the_first_write_wins(known):
    ((key, first),) = items(1)
    known.add([(key, first)])
    known.add([(key, first - 1)])
    assert np.array_equal(known.get(key), first)


def test_no_target_is_an_entry_too(known):
    known.add([(b"0" * 16, np.zeros(0))])
    assert len(known.get(b"0" * 16, 0)) == 0


def test_runs_share_and_references_do_not(tmp_path, known):
    known.add(items(1))
    ((key, logp),) = items(1)
    with KnownLogps(tmp_path, "llama float32 temperature 1.0") as same:
        assert np.array_equal(same.get(key), logp)
    with KnownLogps(tmp_path, "llama float32 temperature 0.9") as other:
        assert other.missing([key]) == {key}
    assert known.path.parent == tmp_path / "references"


def test_the_cache_is_where_prepared_rows_are(cache):
    assert KnownLogps(None, "x").path.parent == cache / "references"


def test_it_travels_as_its_path(known):
    known.add(items(1))
    ((key, logp),) = items(1)
    again = pickle.loads(pickle.dumps(known))
    assert np.array_equal(again.get(key), logp)
    again.close()


def test_a_forked_process_opens_its_own(known):
    known.add(items(1))
    ((key, logp),) = items(1)
    child = os.fork()
    if not child:
        right = np.array_equal(known.get(key), logp) and known.missing([b"1"]) == {b"1"}
        os._exit(0 if right and known._opened[0] == os.getpid() else 1)
    assert os.waitpid(child, 0)[1] == 0
    known.add(items(2))
    assert known.missing(key for key, _ in items(2)) == set()


# What is refused


def test_what_is_not_there(known):
    with pytest.raises(DataError) as caught:
        known.get(b"k" * 16)
    assert str(caught.value) == (
        f"{known.path} holds no log-probs of the reference for an example (key {(b'k' * 16).hex()}); "
        "start the same command again, which computes anew what is not there."
    )


def test_another_length(known):
    known.add(items(1))
    ((key, _),) = items(1)
    with pytest.raises(DataError) as caught:
        known.get(key, 6)
    assert str(caught.value) == (
        f"{known.path} holds 5 log-probs of the reference for an example of 6 targets (key {key.hex()}); delete the file and start again."
    )


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_what_is_not_finite_is_not_kept(known, value):
    wanted = items(2)
    wanted[1][1][3] = value
    with pytest.raises(DataError, match=r"^The reference gives log-probs that are not finite; "):
        known.add(wanted)
    assert len(known.missing(key for key, _ in wanted)) == 2


def test_a_full_disk(known):
    known.add(items(3))
    with known._connected() as connection:
        connection.execute("PRAGMA max_page_count = 8")
    more = [(key, np.zeros(10_000)) for key, _ in items(20, first=3)]
    with pytest.raises(DataError) as caught:
        known.add(more)
    assert str(caught.value) == (
        f"The log-probs of the reference cannot be written to {known.path} (database or disk is full); "
        "make room there, or name another folder with dataset_cache_dir or BURNISH_CACHE."
    )
    assert known.missing(key for key, _ in items(23)) == {key for key, _ in more}
    known.add(items(1, first=50))


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "references").write_text("a file")
    with pytest.raises(DataError) as caught:
        KnownLogps(tmp_path, "x").missing([b"k"])
    assert str(caught.value).startswith("The log-probs of the reference cannot be written to ")
    assert str(caught.value).endswith(" (File exists); make room there, or name another folder with dataset_cache_dir or BURNISH_CACHE.")


def test_a_process_that_hangs_is_not_waited_for_for_ever(known, monkeypatch):
    known.add(items(1))
    known.close()
    monkeypatch.setattr("burnish.data.known_logps.DEADLINE_S", 0.2)
    holder = sqlite3.connect(known.path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(DataError, match=r"has held .* for 0 s; see whether it is alive, and end it if it hangs\.$"):
        known.add(items(2))
    holder.close()
    known.add(items(2))


# Damage


def damaged_row(known, key):
    with sqlite3.connect(known.path) as connection:
        (content,) = connection.execute("SELECT logp FROM logps WHERE example = ?", (key,)).fetchone()
        flipped = bytes([content[0] ^ 1]) + content[1:]
        connection.execute("UPDATE logps SET logp = ? WHERE example = ?", (flipped, key))
    connection.close()


def test_a_damaged_entry_is_not_used_and_computed_anew(known, caplog):
    known.add(items(3))
    (_, (key, logp), _) = items(3)
    damaged_row(known, key)
    with pytest.raises(DataError, match=r"holds damaged log-probs of the reference .* start the same command again"):
        known.get(key)
    with caplog.at_level(logging.WARNING):
        assert known.missing(key for key, _ in items(3)) == {key}
    assert caplog.messages == [f"1 of the reference's log-probs in {known.path} are damaged and will be computed anew."]
    known.add([(key, logp)])
    assert np.array_equal(known.get(key), logp)


@pytest.mark.parametrize("what", ["no database", "truncated", "another table"])
def test_a_damaged_file_is_set_aside(known, what, caplog):
    known.add(items(2000))
    known.close()
    content = known.path.read_bytes()
    if what == "another table":
        connection = sqlite3.connect(known.path)
        connection.execute("ALTER TABLE logps RENAME COLUMN logp TO other")
        connection.close()
    else:
        known.path.write_bytes(b"not a database, but a text of some length" if what == "no database" else content[: len(content) // 2])
    before = known.path.read_bytes()
    with caplog.at_level(logging.WARNING):
        assert len(known.missing(key for key, _ in items(2000))) == 2000
    (said,) = caplog.messages
    aside = known.path.with_suffix(".damaged")
    assert said.startswith(f"{known.path} is damaged (")
    assert said.endswith(f"): it is set aside as {aside.name}, and begun anew.")
    assert aside.read_bytes() == before
    known.add(items(10))
    assert known.missing(key for key, _ in items(10)) == set()


def test_whatever_bit_flips_nothing_wrong_is_read(known):
    """Every byte of the header, and many others: an entry is what it was, or missing. (By byte 18 a file is one to read only.)"""
    wanted = dict(items(300))
    known.add(wanted.items())
    known.close()
    content, draw, lost = known.path.read_bytes(), random.Random(3), 0
    for place in [*range(18), *range(19, 100), *(draw.randrange(len(content)) for _ in range(100))]:
        for path in known.path.parent.iterdir():
            path.unlink()
        known.path.write_bytes(content[:place] + bytes([content[place] ^ (1 << draw.randrange(8))]) + content[place + 1 :])
        missing = known.missing(wanted)
        lost += bool(missing)
        for key in wanted.keys() - missing:
            assert np.array_equal(known.get(key), wanted[key])
        known.add((key, wanted[key]) for key in missing)
        assert all(np.array_equal(known.get(key), logp) for key, logp in wanted.items())
        known.close()
    assert lost > 30


def test_a_file_that_is_damaged_while_it_is_open(known):
    """Much of it is in SQLite's memory; what is not is noticed when it is read."""
    keys = [key for key, _ in items(2000)]
    known.add((key, np.zeros(1000)) for key in keys)
    known.close()
    known.get(keys[0])
    with known.path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\0" * (known.path.stat().st_size - 4096))
    with pytest.raises(DataError) as caught:
        deque(map(known.get, keys), maxlen=0)
    assert str(caught.value).startswith(f"{known.path} ")
    assert "start the same command again" in str(caught.value)
    assert known.missing(keys) == set(keys)


# Several processes

WRITER = """
import sys
from tests.data.test_known_logps import KnownLogps, items
folder, first, step, count = sys.argv[1], *map(int, sys.argv[2:])
known = KnownLogps(folder, "shared")
for i in range(first, first + count * step, step):
    known.add(items(step, first=i))
    print(i + step, flush=True)
"""


def start(folder, first, step, count):
    command = [sys.executable, "-c", WRITER, str(folder), str(first), str(step), str(count)]
    return subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True)


def test_two_processes_write_at_once(tmp_path):
    """Half of what each writes is the other's too; both find a file that is damaged, and one begins it anew."""
    path = KnownLogps(tmp_path, "shared").path
    path.parent.mkdir()
    path.write_bytes(b"not a database, but a text of some length")
    writers = [start(tmp_path, first, 50, 40) for first in (0, 1000)]
    assert [writer.communicate(timeout=120)[0].split()[-1] for writer in writers] == ["2000", "3000"]
    assert [writer.returncode for writer in writers] == [0, 0]
    with KnownLogps(tmp_path, "shared") as known:
        assert known.missing(key for key, _ in items(3000)) == set()
        assert all(np.array_equal(known.get(key), logp) for key, logp in items(3000))


def test_what_add_has_written_survives_kill_9(tmp_path, caplog):
    """Killed at random moments: all that was said to be written is there, and of the rest whole transactions."""
    clock, done, in_the_middle = random.Random(1), 0, 0
    for _ in range(4):
        writer = start(tmp_path, done, 3000, 10**6)
        first = int(writer.stdout.readline())
        time.sleep(clock.uniform(0, 0.1))
        writer.send_signal(signal.SIGKILL)
        said = max([first, *map(int, writer.stdout.read().split())])
        writer.wait()
        in_the_middle += any(path.name.endswith("-wal") for path in (tmp_path / "references").iterdir())
        with KnownLogps(tmp_path, "shared") as known:
            found = {key for key, _ in items(said + 6000)} - known.missing(key for key, _ in items(said + 6000))
            assert len(found) in (said, said + 3000)
            assert found == {key for key, _ in items(len(found))}
            done = len(found)
    assert in_the_middle
    assert caplog.messages == []


# Examples with their log-probs


def test_examples_come_with_what_is_known(tmp_path):
    example = Example(
        group_id="a",
        prompt=(Segment(token_ids=[5, 6], source="prompt", trained=False),),
        branches=(Branch(segments=(Segment(token_ids=[7, 8], source="model", trained=True),)),),
    )
    known = KnownLogps(tmp_path, "reference")
    with pytest.raises(DataError, match="holds no log-probs of the reference"):
        with_logps(example, known)
    known.add([(example_key(example), np.array([-1.0, -2.0], dtype=np.float32))])
    assert with_logps(example, known).ref_logp.tolist() == [-1.0, -2.0]
