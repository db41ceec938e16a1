"""What a run records of its code, and its loggers."""

import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import torch
from ruamel.yaml import YAML

from ser_plugins import configuration
from ser_plugins.training import EpochCounter
from ser_plugins.training.checkpoints import Stopwatch, WholeCheckpointer, recover_best
from ser_plugins.training.run import begin, commit, fit, run_facts


def test_the_commit_is_that_of_the_checkout(monkeypatch):
    words = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    head = subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()
    found = commit.__wrapped__()
    assert (found or "").removesuffix("-dirty") == head and (
        found is None or re.fullmatch(r"[0-9a-f]{40}(-dirty)?", found)
    )
    monkeypatch.setenv("PATH", "")
    assert commit.__wrapped__() is None


def test_a_package_outside_of_a_repository_has_no_commit(monkeypatch, tmp_path):
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "no repository"))
    assert commit.__wrapped__() is None


def test_a_logger_of_the_yaml_logs_beside_the_file(tmp_path):
    logger = f"!new:speechbrain.utils.train_logger.FileTrainLogger {{save_file: {tmp_path / 'own.txt'}}}"
    tree = configuration.compose("s1", "synthetic", {"train_logger": YAML().load(logger)})
    begin(tree, tmp_path / "run")["train_logger"].log_stats({"epoch": 3}, train_stats={"loss": 0.25})
    logs = {(tmp_path / name).read_text() for name in ("own.txt", "run/train_log.txt")}
    assert len(logs) == 1 and "epoch: 3 - train loss: 2.50e-01" in logs.pop()


def test_the_seconds_of_a_training_are_those_of_all_its_epochs(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    stopwatch = Stopwatch()
    checkpointer = WholeCheckpointer(tmp_path, {"stopwatch": stopwatch})

    class Brain:
        modules = torch.nn.ModuleDict({"embedding_model": torch.nn.Linear(1, 1)})
        hparams = SimpleNamespace(epoch_counter=EpochCounter(3), stopwatch=stopwatch)

        def fit(self, epochs, *_):
            for epoch in epochs:
                now[0] += 10
                checkpointer.save_checkpoint(meta={"accuracy": 1 / epoch, "epoch": epoch})

        def load_best(self):
            return recover_best(checkpointer, "accuracy", "max")

    facts = run_facts(fit(Brain(), None, None))
    assert (facts["best_epoch"], facts["epochs"], facts["seconds"]) == (1, 3, 30.0)
