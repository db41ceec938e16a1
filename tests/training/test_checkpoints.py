import os
import subprocess
import sys

import pytest
import torch
from speechbrain.utils.epoch_loop import EpochCounterWithStopper

from ser_plugins.training.checkpoints import Stopwatch, WholeCheckpointer

SAVE_AND_DIE = """
import os, sys, torch
from ser_plugins.training.checkpoints import WholeCheckpointer

def die(obj, path):
    open(path, "w").write("half")
    os._exit(9)

saved = WholeCheckpointer(sys.argv[1], {"first": torch.nn.Linear(2, 2)})
saved.add_recoverable("second", object(), custom_save_hook=die, custom_load_hook=lambda *_: None)
saved.save_checkpoint(meta={"accuracy": 0.9})
"""


def test_killed_while_it_saves_the_checkpoint_before_counts(tmp_path):
    first = torch.nn.Linear(2, 2)
    checkpointer = WholeCheckpointer(tmp_path, {"first": first})
    checkpointer.save_checkpoint(meta={"accuracy": 0.5})
    kept = first.weight.detach().clone()
    done = subprocess.run([sys.executable, "-c", SAVE_AND_DIE, str(tmp_path)], check=False, capture_output=True)
    assert done.returncode == 9
    assert len(list(tmp_path.iterdir())) == 2
    torch.nn.init.zeros_(first.weight)
    found = checkpointer.recover_if_possible(max_key="accuracy")
    assert found.meta["accuracy"] == 0.5
    torch.testing.assert_close(first.weight, kept)


def test_half_deleted_it_does_not_count(tmp_path):
    checkpointer = WholeCheckpointer(tmp_path, {"first": torch.nn.Linear(2, 2)})
    checkpoint = checkpointer.save_checkpoint()
    os.remove(checkpoint.paramfiles["first"])
    assert checkpointer.find_checkpoint() is None


def test_a_resumed_run_knows_its_best_epoch(tmp_path):
    def counter() -> EpochCounterWithStopper:
        return EpochCounterWithStopper(limit=9, limit_to_stop=3, limit_warmup=0, direction="max")

    before, after = counter(), counter()
    for accuracy in (0.7, 0.6, 0.6):
        next(before)
        before.update_metric(accuracy)
    WholeCheckpointer(tmp_path, {"epochs": before}).save_checkpoint()
    WholeCheckpointer(tmp_path, {"epochs": after}).recover_if_possible()
    assert (after.current, after.best_limit, after.best_score) == (3, 1, 0.7)
    next(after)
    after.update_metric(0.6)
    with pytest.raises(StopIteration):
        next(after)


def test_the_stopwatch_adds_up(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    first = Stopwatch()
    now[0] = 130.0
    WholeCheckpointer(tmp_path, {"stopwatch": first}).save_checkpoint()
    now[0] = 500.0
    second = Stopwatch()
    WholeCheckpointer(tmp_path, {"stopwatch": second}).recover_if_possible()
    now[0] = 505.0
    assert second.seconds() == 35.0
