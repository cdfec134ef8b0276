"""What is measured where, and what is left out where a system does not say it."""

import pytest
from bench.processes import TurnError
from bench.subjects import head, preparation

from bench import __main__ as command
from bench import machine
from tests.tiny import save_tiny_model


def test_onednn_is_refused_where_it_rounds(monkeypatch):
    """Where it does, `matmul` has no figure for it."""
    monkeypatch.setattr(command, "ask", lambda *_, **__: ([{"measures": {"default": [1.0], "onednn": [2.0]}}], None))
    command.refuse_rounding(1)
    monkeypatch.setattr(command, "ask", lambda *_, **__: ([{"measures": {"default": [1.0]}}], None))
    with pytest.raises(SystemExit, match="oneDNN rounds float32 products to bfloat16; leave it out"):
        command.refuse_rounding(1)

    def fails(*_, **__):
        raise TurnError("no torch")

    monkeypatch.setattr(command, "ask", fails)
    with pytest.raises(SystemExit, match="the product could not be tried: no torch"):
        command.refuse_rounding(1)


@pytest.mark.parametrize(("resident", "measures"), [(0, {"cpu_s"}), (1, {"cpu_s", "extra_bytes"})])
def test_memory_beyond_what_was_held_needs_a_system_that_says_it(resident, measures, monkeypatch):
    monkeypatch.setattr(head, "resident_bytes", lambda: resident)
    assert set(head.run({"tokens": 16, "vocabulary": 128, "hidden": 8, "threads": 1})["measures"]) == measures


def test_a_processor_without_a_name_has_that_of_its_kind(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "Path", lambda _: tmp_path / "none")
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    assert machine.processor() == "arm64"


def test_the_peak_is_read_before_the_signature_takes_memory(monkeypatch, tmp_path):
    order = []
    monkeypatch.setattr(preparation, "peak_bytes", lambda: order.append("peak") or 7)
    monkeypatch.setattr(preparation, "signature", lambda ids, trained: order.append("signature") or str(sum(map(len, ids))))
    preparation.write_rows(tmp_path / "rows.jsonl", 3)
    spec = {
        "tokenizer": str(save_tiny_model(tmp_path / "model")),
        "assistant_only_loss": False,
        "rows": str(tmp_path / "rows.jsonl"),
        "num_proc": 1,
    }
    answer = preparation.prepare_ours(spec, str(tmp_path / "cache"))
    assert order == ["peak", "signature"]
    assert answer["measures"]["peak_bytes"] == [7]
    assert int(answer["facts"]["signature"]) > 3
