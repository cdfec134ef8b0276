import json

import numpy as np
import pytest

from burnish.data.prepare_report import PrepareReport
from burnish.data.rows import DataError
from burnish.data.store import SCHEMA, ColumnBuilder, ExampleStore, StoreWriter
from burnish.types import Branch, Example, Segment


def seg(ids, source="model", trained=True, **sampled):
    return Segment(token_ids=ids, source=source, trained=trained, **sampled)


def branch(*segments, **rest):
    return Branch(segments=segments, **rest)


EXAMPLES = [
    Example(group_id="a:0", prompt=(), branches=(branch(seg([1, 2], "template", False), seg([3, 4, 5])),)),
    Example(
        group_id="pair",
        prompt=(seg([1], "template", False), seg([6, 7], "prompt", False)),
        branches=(branch(seg([8]), seg([9], "tool", False), seg([10]), label=True), branch(seg([11, 12]), label=False)),
    ),
    Example(group_id="empty branch", prompt=(seg([1, 2], "prompt"),), branches=(branch(),)),
    Example(
        group_id="group",
        prompt=(seg([5], "prompt", False),),
        branches=(branch(seg([1]), advantage=0.5), branch(seg([2]), advantage=-0.5), branch(seg([3]), advantage=0.0)),
    ),
]


def plain(example):
    def flat(segments):
        return [(s.token_ids.tolist(), s.source, s.trained) for s in segments]

    return example.group_id, flat(example.prompt), [(flat(b.segments), b.label, b.advantage) for b in example.branches]


def test_any_example_comes_back():
    store = ExampleStore.from_examples(EXAMPLES)
    assert [plain(example) for example in store] == [plain(example) for example in EXAMPLES]
    assert plain(store[-1]) == plain(EXAMPLES[-1])
    assert store.lengths.tolist() == [5, 8, 2, 4] == [len(example) for example in EXAMPLES]
    assert store.trained.tolist() == [3, 4, 1, 3] == [example.trained_tokens for example in EXAMPLES]
    assert (store.report.rows, store.report.tokens, store.report.trained_tokens) == (4, 19, 11)
    with pytest.raises(IndexError):
        store[4]


def test_segments_are_views_of_the_tokens():
    store = ExampleStore.from_examples(EXAMPLES)
    assert np.shares_memory(store[1].branches[0].segments[0].token_ids, store._columns["tokens"])


def test_sampled_examples_are_refused():
    sampled = Example(group_id="g:1", prompt=(), branches=(branch(seg([1], behaviour_logp=np.zeros(1))),))
    with pytest.raises(DataError, match=r"^Example g:1 was sampled \(it has behaviour log-probs\); a store keeps data that was not\.$"):
        ExampleStore.from_examples([sampled])


def test_no_example():
    with pytest.raises(DataError, match=r"^There is no example in x; give at least one\.$"):
        ExampleStore.from_examples([], "x")


REPORT = PrepareReport(rows=2, kept=2, tokens=9, trained_tokens=5, cut=1, first={"cut": "x[0]"}, unused_columns=("id",))


def written(folder):
    parts = []
    for i, example in enumerate(EXAMPLES[:2]):
        builder = ColumnBuilder()
        builder.add_example(10 + i, example)
        parts.append(builder.columns())
    with StoreWriter(folder, "name") as writer:
        for part in parts:
            writer.append(part)
        writer.finish(REPORT)
    return parts


def test_a_store_on_disk_is_the_store_in_memory(tmp_path):
    parts = written(tmp_path / "s")
    loaded = ExampleStore.load(tmp_path / "s")
    assert [example.group_id for example in loaded] == ["name:10", "name:11"]
    assert [plain(example)[1:] for example in loaded] == [plain(example)[1:] for example in EXAMPLES[:2]]
    assert loaded.report == REPORT
    memory = ExampleStore({name: np.concatenate([part[name] for part in parts]) for name in SCHEMA}, name="name")
    assert memory.fingerprint == loaded.fingerprint != ExampleStore(parts[0], name="name").fingerprint


@pytest.mark.parametrize("name", [*SCHEMA, "manifest.json"])
def test_damage_is_seen(tmp_path, name):
    written(tmp_path / "s")
    path = tmp_path / "s" / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=f"{name} (has .* bytes instead of|is not the manifest of a store)"):
        ExampleStore.load(tmp_path / "s")
    path.unlink()
    with pytest.raises(DataError, match=rf"{name} cannot be read \(No such file or directory\)\.$"):
        ExampleStore.load(tmp_path / "s")


@pytest.mark.parametrize("name", [*SCHEMA, "manifest.json"])
def test_a_flipped_bit_is_seen(tmp_path, name):
    written(tmp_path / "s")
    path = tmp_path / "s" / name
    content = path.read_bytes()
    path.write_bytes(
        content[:-40] + bytes([content[-40] ^ 1]) + content[-39:] if len(content) > 40 else bytes([content[0] ^ 1]) + content[1:]
    )
    words = (
        r"manifest.json (was changed after it was written|is not the manifest of a store)|/\w+ does not have the hash it was written with"
    )
    with pytest.raises(DataError, match=words):
        ExampleStore.load(tmp_path / "s")


def test_another_version_is_not_read(tmp_path):
    written(tmp_path / "s")
    path = tmp_path / "s" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 0}))
    with pytest.raises(DataError, match=r"is a store of version 0, not 3\.$"):
        ExampleStore.load(tmp_path / "s")
