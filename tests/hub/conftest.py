import importlib.util
import json
from pathlib import Path

import huggingface_hub.constants
import pytest

LABELS = ["neutral", "happy", "sad"]
METRICS = {
    "strategy": "S1",
    "corpus": "ravdess",
    "synthetic": False,
    "fold": 1,
    "seed": 1,
    "labels": LABELS,
    "n_train": 70,
    "n_test": 9,
    "accuracy": 5 / 9,
    "uar": 0.6123456,
    "macro_f1": 0.4987654,
    "confusion": [[1, 2, 0], [0, 3, 0], [1, 1, 1]],
    "pretrained_encoder": "none",
    "epochs": 7,
    "best_epoch": 3,
    "commit": None,
    "versions": {"ser-plugins": "0.1.0"},
}


def load_loopback():
    spec = importlib.util.spec_from_file_location("loopback", Path(__file__).with_name("loopback.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def model(tmp_path, write_model):
    return write_model(tmp_path / "model")


@pytest.fixture
def write_run(write_model):
    """Writer of what a fold leaves, but for its training: folder, changes of metrics."""

    def write(folder, **changes):
        model = write_model(folder / "model")
        (folder / "metrics.json").write_text(json.dumps({**METRICS, **changes}))
        (folder / "hyperparams.yaml").write_text("n_folds: 10\n")
        (folder / "confusion.png").write_bytes(b"\x89PNG")
        return model

    return write


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A Hub on this machine; the client of this process speaks to it, with the right token."""
    with load_loopback().Hub().running() as hub:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setenv("HF_TOKEN", "hf_right")
        yield hub
