import os
import subprocess
import sys

import pytest
import torch

from ser_plugins.training.checkpoints import EpochCounter, Stopwatch, WholeCheckpointer

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
    before, after = EpochCounter(9, patience=3), EpochCounter(9, patience=3)
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


@pytest.mark.parametrize("settings", [{"limit": 0}, {"limit": 2.5}, {"limit": 3, "patience": -1}, {"limit": True}])
def test_an_epoch_counter_needs_whole_numbers_above_0(settings):
    with pytest.raises(ValueError, match="must be a whole number above 0, got"):
        EpochCounter(**settings)


@pytest.mark.parametrize(("key", "sign"), [("max_keys", 1), ("min_keys", -1)])
def test_the_best_epochs_and_one_a_minute_are_saved(tmp_path, monkeypatch, key, sign):
    checkpointer = WholeCheckpointer(tmp_path, {"layer": torch.nn.Linear(1, 1)})
    results = [0.5, 0.6, 0.55, 0.6, 0.5, 0.5, 0.7]  # the third, fifth and sixth are not the best so far
    clock = [100, 110, 120, 130, 191, 192, 193]
    saved = []
    monkeypatch.setattr(
        WholeCheckpointer, "save_checkpoint", lambda self, **facts: saved.append(facts["meta"]["result"])
    )
    for result, now in zip(results, clock, strict=True):
        monkeypatch.setattr("time.monotonic", lambda now=now: now)
        checkpointer.save_and_keep_only(meta={"result": sign * result}, num_to_keep=1, **{key: ["result"]})
    assert [sign * one for one in saved] == [0.5, 0.6, 0.6, 0.5, 0.7]
