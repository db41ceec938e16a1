"""The line that shows the progress of a run."""

import io
import logging
import sys
from types import SimpleNamespace

import pytest
from speechbrain.utils.run_opts import RunOptions
from speechbrain.utils.train_logger import TrainLogger

from ser_plugins.training import EpochCounter
from ser_plugins.training.progress import Progress
from ser_plugins.training.recipe import Recipe
from ser_plugins.training.run import TrainLoggers


@pytest.fixture
def recipe():
    tree = {"strategy": "S5", "corpus": "ravdess", "n_folds": 10}
    return Recipe(tree, RunOptions())


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still unless it is moved."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr("ser_plugins.training.progress.time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def told(caplog):
    return [record.getMessage() for record in caplog.records if record.name.startswith("ser_plugins")]


def train(progress, fold, accuracies, clock, counter=None, patience=None):
    """A training as the Brain does it, ten seconds an epoch."""
    counter = counter or EpochCounter(4, patience)
    hparams = {"epoch_counter": counter, "train_logger": TrainLoggers()}
    progress.watch(fold, hparams)
    logger: TrainLogger = hparams["train_logger"]
    for epoch in counter:
        clock.now += 10
        counter.update_metric(accuracies[epoch - 1])
        logger.log_stats({"epoch": epoch}, train_stats={"loss": 1.0}, valid_stats={"accuracy": accuracies[epoch - 1]})


def test_a_log_has_a_line_for_each_epoch(recipe, clock, caplog):
    caplog.set_level(logging.INFO)
    with Progress(recipe, [3, 5]) as progress:
        train(progress, 3, [0.2, 0.5, 0.4, 0.3], clock)
        clock.now += 40  # evaluation
        train(progress, 5, [0.1, 0.2, 0.3, 0.4], clock)
    assert told(caplog) == [
        "S5, ravdess, fold 3 of 10",
        "S5, ravdess, fold 3 of 10, epoch 1 of 4, best 20.0 % in epoch 1, 01:10 left",
        "S5, ravdess, fold 3 of 10, epoch 2 of 4, best 50.0 % in epoch 2, 01:00 left",
        "S5, ravdess, fold 3 of 10, epoch 3 of 4, best 50.0 % in epoch 2, 00:50 left",
        "S5, ravdess, fold 3 of 10, epoch 4 of 4, best 50.0 % in epoch 2, 00:40 left",
        "S5, ravdess, fold 5 of 10",
        "S5, ravdess, fold 5 of 10, epoch 1 of 4, best 10.0 % in epoch 1, 00:54 left",
        "S5, ravdess, fold 5 of 10, epoch 2 of 4, best 20.0 % in epoch 2, 00:33 left",
        "S5, ravdess, fold 5 of 10, epoch 3 of 4, best 30.0 % in epoch 3, 00:15 left",
        "S5, ravdess, fold 5 of 10, epoch 4 of 4, best 40.0 % in epoch 4, 00:00 left",
    ]
    assert recipe.options.noprogressbar


def test_epochs_that_are_resumed_or_saved_do_not_change_the_pace(recipe, clock, caplog):
    caplog.set_level(logging.INFO)
    resumed = EpochCounter(4)
    resumed.current, resumed.best_limit, resumed.best_score = 2, 1, 0.7
    with Progress(recipe, [1, 2, 3]) as progress:
        train(progress, 1, [0.7, 0.5, 0.4, 0.5], clock, resumed)
        train(progress, 2, [0.5, 0.2, 0.2, 0.2], clock, patience=1)
        train(progress, 3, [0.5, 0.2, 0.2, 0.2], clock, patience=1)
    epochs = [message for message in told(caplog) if "left" in message]
    assert epochs[0].endswith("fold 1 of 10, epoch 3 of 4, best 70.0 % in epoch 1, 01:30 left")
    assert epochs[2].endswith("fold 2 of 10, epoch 1 of 4, best 50.0 % in epoch 1, 01:10 left")
    assert len(epochs) == 6


def test_a_terminal_has_one_line_that_moves(recipe, clock, monkeypatch, caplog):
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress(recipe, [1, 2]) as progress:
        train(progress, 1, [0.2, 0.5, 0.4, 0.3], clock)
        train(progress, 2, [0.2, 0.5, 0.4, 0.3], clock)
    shown = terminal.getvalue()
    assert shown.count("\n") == 1 and shown.endswith("\n") and not told(caplog)
    last = shown.strip().split("\r")[-1]
    assert (
        last.startswith("S5, ravdess, fold 2 of 10, epoch 4 of 4, best 50.0 % in epoch 2") and "8 of 8 epochs" in last
    )
    assert recipe.options.noprogressbar


def test_one_fold_on_a_terminal_keeps_the_bars_of_speechbrain(recipe, clock, monkeypatch, caplog):
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress(recipe, [1]) as progress:
        train(progress, 1, [0.2, 0.5, 0.4, 0.3], clock)
    assert not terminal.getvalue() and not told(caplog) and not recipe.options.noprogressbar
