import importlib.util
import json
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch

from ser_plugins import SVMClassifier, configuration
from ser_plugins.hub.folder import inference_yaml, save_model_folder
from ser_plugins.models.batchnorm import MaskedBatchNorm

HPARAMS = Path(__file__).parents[2] / "hparams"
LABELS = ["neutral", "happy", "sad"]
TINY = {"channels": [4, 4, 8, 8], "descriptor_size": 8, "embedding_size": 12, "vad": "none", "labels": LABELS}
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


def write_model(folder, strategy="s1", seed=1):
    """A model folder of a tiny network of any weights and statistics."""
    tree = configuration.merge(configuration.read(HPARAMS / f"{strategy}.yaml"), TINY, "")
    torch.manual_seed(seed)
    built = configuration.build(tree)
    for module in built["embedding_model"].modules():
        if isinstance(module, MaskedBatchNorm):
            torch.nn.init.normal_(module.running_mean, std=0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    if isinstance(built["classifier"], SVMClassifier):
        built["classifier"].fit(torch.randn(40, 1, 12), torch.arange(40) % 3)
    yaml = inference_yaml(configuration.resolve(tree), HPARAMS / "inference.yaml")
    save_model_folder(folder, yaml, built["embedding_model"], built["classifier"], LABELS)
    return folder


@pytest.fixture
def model(tmp_path):
    return write_model(tmp_path / "model")


@pytest.fixture
def write_run():
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
