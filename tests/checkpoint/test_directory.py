import json
import os
import socket
import subprocess
import sys

import pytest
import torch

from burnish.checkpoint.directory import RunDirectory
from burnish.checkpoint.files import CheckpointError, Found
from burnish.checkpoint.state import TrainerState, TrainState
from burnish.distributed.launch import Launch

RUN = {"model": "m"}


def a_state(make_model, step):
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return TrainState(model=model, optimizer=optimizer, trainer=TrainerState(global_step=step))


def test_a_run_is_continued_begun_anew_or_refused(make_model, tmp_path):
    directory = RunDirectory(tmp_path / "run", Launch())
    assert (
        directory.find("auto", RUN, overwrite=False)
        == directory.find("never", RUN, overwrite=False)
        == Found(path=None, step=0, skipped=())
    )
    assert directory.last_good() == "no checkpoint was written before"
    for step in (1, 2):
        directory.save(a_state(make_model, step), RUN, limit=None, metrics_offset=step)
    (tmp_path / "run" / "checkpoint-best").mkdir()
    two = tmp_path / "run" / "checkpoint-2"
    assert directory.last_good() == f"the last good checkpoint is {two}"
    assert directory.find("auto", RUN, overwrite=False) == Found(path=two, step=2, skipped=())
    assert directory.find(str(two.with_name("checkpoint-1")), RUN, overwrite=False).step == 1
    with pytest.raises(CheckpointError) as error:
        directory.find("never", RUN, overwrite=False)
    assert str(error.value) == (
        f"{tmp_path}/run holds a run already (up to checkpoint-2) and resume_from_checkpoint is 'never'; "
        "choose another output_dir, or set overwrite_output_dir=True to delete it."
    )
    directory.metrics.write_text("{}\n")
    directory.clear()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["checkpoint-best"]


def test_the_best_checkpoint_is_named_and_kept(make_model, tmp_path):
    directory, state = RunDirectory(tmp_path, Launch()), a_state(make_model, 1)
    state.trainer.best_global_step = 1
    for step in (1, 2, 3):
        state.trainer.global_step = step
        directory.save(state, RUN, limit=1, metrics_offset=10)
    assert state.trainer.best_model_checkpoint == f"{tmp_path}/checkpoint-1"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-1", "checkpoint-3"]


def test_lines_that_were_changed_are_noticed(make_model, tmp_path):
    directory = RunDirectory(tmp_path / "run", Launch())
    directory.hold()
    directory.metrics.write_text('{"loss": 3}\n{"loss": 2}\n')
    for step, size in ((1, 12), (2, 24)):
        directory.save(a_state(make_model, step), RUN, limit=None, metrics_offset=size)
    directory.metrics.write_text('{"loss": 3}\n{"loss": 1}\n')
    with pytest.raises(CheckpointError) as error:
        directory.find("auto", RUN, overwrite=False)
    assert str(error.value) == (
        f"{tmp_path}/run/metrics.jsonl was changed: its first 24 bytes are not those that checkpoint-2 was written with; "
        "put the original back, name an earlier checkpoint with resume_from_checkpoint, or start over in another output_dir."
    )
    one = tmp_path / "run" / "checkpoint-1"
    assert directory.find(str(one), RUN, overwrite=False).step == 1
    elsewhere = RunDirectory(tmp_path / "other", Launch())
    elsewhere.hold()
    elsewhere.adopt_metrics(one)
    assert elsewhere.metrics.read_text() == '{"loss": 3}\n'
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl was changed"):
        elsewhere.adopt_metrics(one.with_name("checkpoint-2"))


def test_a_folder_that_cannot_be_read(make_model, tmp_path, monkeypatch):
    def forbidden(*_, **__):
        raise PermissionError(13, "Permission denied", "checkpoint-1/model.safetensors")

    monkeypatch.setattr("burnish.checkpoint.directory.find_checkpoint", forbidden)
    with pytest.raises(CheckpointError) as error:
        RunDirectory(tmp_path, Launch()).find("auto", RUN, overwrite=False)
    assert str(error.value) == (
        "checkpoint-1/model.safetensors cannot be read or changed (Permission denied); see who may, or name another output_dir."
    )


RANK = """
import json, sys, torch
from pathlib import Path
from burnish.checkpoint.directory import RunDirectory
from burnish.checkpoint.files import CheckpointError
from burnish.checkpoint.state import TrainerState, TrainState
from burnish.distributed.launch import launch

class Model(torch.nn.Linear):
    def save_pretrained(self, folder, state_dict):
        if folder.name.startswith("tmp-checkpoint-2"):
            raise OSError(28, "No space left on device")

here, path = launch(), Path(sys.argv[1])
torch.manual_seed(here.rank)
model = Model(2, 2)
state = TrainState(model=model, optimizer=torch.optim.SGD(model.parameters()), trainer=TrainerState(global_step=1))
state.meter = {"loss": (1.0 + here.rank, 1.0)}
directory = RunDirectory(path, here)
directory.save(state, {"model": "m"}, limit=None, metrics_offset=0)
drawn = torch.rand(1).item()
state.trainer.global_step = 2
said = []
for attempt in (
    lambda: directory.save(state, {"model": "m"}, limit=None, metrics_offset=0),
    lambda: directory.find("auto", {"model": "other"}, overwrite=False),
):
    try:
        attempt()
    except CheckpointError as error:
        said.append(str(error))
found = directory.find("auto", {"model": "m"}, overwrite=False)
state.load(found.path, here)
told = [here.rank, str(found.path), state.meter, torch.rand(1).item() == drawn, said]
Path(sys.argv[1] + f"-rank-{here.rank}").write_text(json.dumps(told))
"""


def test_two_ranks_find_the_same_and_fail_alike(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    out = tmp_path / "run"
    common = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    ranks = [subprocess.Popen([sys.executable, "-c", RANK, str(out)], env={**common, "RANK": str(rank)}) for rank in range(2)]
    assert [rank.wait(60) for rank in ranks] == [0, 0]
    first, second = (json.loads((tmp_path / f"run-rank-{rank}").read_text()) for rank in range(2))
    assert first[:4] == [0, f"{out}/checkpoint-1", {"loss": [1.0, 1.0]}, True]
    assert second[:4] == [1, f"{out}/checkpoint-1", {"loss": [2.0, 1.0]}, True]
    assert first[4] == second[4]
    full, foreign = first[4]
    assert full.startswith(f"{out}/checkpoint-2 was not saved because the disk is full: it needs about ")
    assert foreign.startswith(f"{out}/checkpoint-1 belongs to another run (model is 'm' there and 'other' here); ")
