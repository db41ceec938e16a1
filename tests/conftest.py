import json
import os
import shutil
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
from filelock import FileLock
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, f1_score

# A process of joblib's takes seconds to start: audio is prepared in the process of the test where it does not say more.
os.environ.setdefault("LOKY_MAX_CPU_COUNT", "1")


@pytest.hookimpl(tryfirst=True, wrapper=True)
def pytest_collection_modifyitems() -> Generator[None, Any, Any]:
    # hypothesis looks for the file of every module, and SpeechBrain's lazy ones answer that by importing what they
    # stand for, optional dependencies such as k2 included.
    from speechbrain.utils.importutils import LazyModule

    for module in list(sys.modules.values()):
        if isinstance(module, LazyModule):
            module.__dict__.setdefault("__file__", None)
    return (yield)


@pytest.fixture(scope="session")
def shared(tmp_path_factory, worker_id) -> Path:
    """A folder that all workers share."""
    base = tmp_path_factory.getbasetemp()
    return base if worker_id == "master" else base.parent


@pytest.fixture(scope="session")
def audio(shared) -> Path:
    """A folder with the audio of the built-in corpus and, later, the cache, shared by all workers."""
    from ser_plugins.corpora import Synthetic

    folder = shared / "audio"
    with FileLock(f"{folder}.lock"):
        Synthetic(str(folder / "synthetic")).read()
    return folder


@pytest.fixture(scope="session")
def write_aac() -> Callable[..., None]:
    """Writer of real AAC files, as VoxCeleb2's: path, samples, rate."""
    import av

    def write(path: Path, samples: np.ndarray, rate: int = 16000) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), "w") as container:
            stream = container.add_stream("aac", rate=rate, layout="mono")
            frame = av.AudioFrame.from_ndarray(samples[None].astype(np.float32), format="fltp", layout="mono")
            frame.rate = rate
            for packet in [*stream.encode(frame), *stream.encode(None)]:
                container.mux(packet)

    return write


@pytest.fixture(scope="session")
def write_ssl() -> Callable[..., Path]:
    """Writer of tiny self-supervised networks of random weights, as transformers saves them: folder, kind, settings."""
    import torch
    from transformers import AutoConfig, AutoModel, Wav2Vec2FeatureExtractor

    layers = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    # No kernel of 8 over 8 channels: of these, in bfloat16 on a processor with AMX, oneDNN (PyTorch 2.11) makes noise.
    stem = {"conv_dim": [8, 8, 8], "conv_kernel": [10, 9, 4], "conv_stride": [5, 8, 4], "num_feat_extract_layers": 3}
    position = {"num_conv_pos_embeddings": 6, "num_conv_pos_embedding_groups": 2}

    def write(folder: Path, kind: str = "wavlm", do_normalize: bool = True, **settings: Any) -> Path:
        torch.manual_seed(0)
        network = AutoModel.from_config(AutoConfig.for_model(kind, **{**layers, **stem, **position, **settings}))
        for weight in network.parameters():  # far from the identity that networks of small weights are
            torch.nn.init.normal_(weight, std=0.3)
        network.save_pretrained(folder)
        Wav2Vec2FeatureExtractor(do_normalize=do_normalize).save_pretrained(folder)
        return folder

    return write


LABELS = ["neutral", "happy", "sad"]


@pytest.fixture(scope="session")
def tiny_model() -> Callable[..., Any]:
    """Maker of tiny networks of any weights and statistics: strategy, seed, settings.

    It returns what the YAML builds, and the YAML of the model folder.
    """
    import torch

    from ser_plugins import configuration
    from ser_plugins.model_folder.saving import inference_yaml, self_contained
    from ser_plugins.models.batchnorm import MaskedBatchNorm

    def make(strategy: str = "s1", seed: int = 1, labels: list[str] = LABELS, **settings: Any) -> Any:
        polarity = {label: ("positive", "negative")[i % 2] for i, label in enumerate(labels[1:])}
        network = {"channels": [4, 4, 8, 8], "descriptor_size": 8, "embedding_size": 12}
        tiny = {"labels": labels, "polarity": polarity, "vad": "none", **network}
        tree = configuration.compose(strategy, "synthetic")
        tree |= {key: value for key, value in {**tiny, **settings}.items() if key in tree}
        assert set(settings) <= {"polarity", *tree}
        torch.manual_seed(seed)
        built = configuration.build(tree)
        for module in built["embedding_model"].modules():
            if isinstance(module, MaskedBatchNorm):
                torch.nn.init.normal_(module.running_mean, std=0.2)
                torch.nn.init.uniform_(module.running_var, 0.5, 2)
        if hasattr(built["classifier"], "fit"):
            part = torch.randn(40, 1, {"bhavan": 80, "chi": 272}.get(strategy, 12)), torch.arange(40) % len(labels)
            built["classifier"].fit(*part, *part)
        elif hasattr(built["classifier"], "linear"):
            torch.nn.init.normal_(built["classifier"].linear.weight)
        resolved = self_contained(configuration.resolve(tree), built["embedding_model"])
        return built, inference_yaml(resolved)

    return make


@pytest.fixture(scope="session")
def write_model(tiny_model: Callable[..., Any]) -> Callable[..., Path]:
    """Writer of model folders: folder, and what `tiny_model` takes."""
    from ser_plugins.model_folder.saving import save_model_folder

    def write(folder: Path, *kind: Any, labels: list[str] = LABELS, **settings: Any) -> Path:
        built, yaml = tiny_model(*kind, labels=labels, **settings)
        save_model_folder(folder, yaml, built["embedding_model"], built["classifier"], labels)
        return folder

    return write


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


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory, write_model):
    """A model folder that tests only read."""
    return write_model(tmp_path_factory.mktemp("shared") / "model", "s3")


@pytest.fixture(scope="session")
def loaded_model(model_folder):
    """The model of `model_folder`."""
    from ser_plugins import load

    return load(model_folder, device="cpu")


@pytest.fixture
def model(tmp_path, model_folder):
    """A copy of `model_folder` that a test may change."""
    return shutil.copytree(model_folder, tmp_path / "model")


@pytest.fixture
def write_run(model_folder):
    """Writer of what a fold leaves, but for its training: folder, changes of metrics."""

    def write(folder, **changes):
        model = shutil.copytree(model_folder, folder / "model")
        (folder / "metrics.json").write_text(json.dumps({**METRICS, **changes}))
        (folder / "hyperparams.yaml").write_text("n_folds: 10\n")
        (folder / "confusion.png").write_bytes(b"\x89PNG")
        return model

    return write


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    """A folder of 14 clips of many lengths and sample rates, and of 4 files that cannot be used."""
    folder = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(0)
    for number in range(14):
        rate = (16000, 8000, 48000)[number % 3]
        size = (round(rng.uniform(0.15, 1.2) * rate), 2) if number % 2 else round(rng.uniform(0.15, 1.2) * rate)
        place = folder / ("deep/er" if number % 4 == 0 else ".")
        place.mkdir(parents=True, exist_ok=True)
        soundfile.write(
            place / f"clip{number:02d}.{'flac' if number % 5 == 0 else 'WAV'}", rng.normal(0, 0.1, size), rate
        )
    (folder / "empty.wav").touch()
    (folder / "noise.mp3").write_bytes(rng.bytes(500))
    (folder / "notes.txt").write_text("no sound")
    soundfile.write(folder / "silent.wav", np.zeros(16000), 16000)
    soundfile.write(folder / "short.wav", rng.normal(0, 0.1, 500), 16000)
    return folder


EMOTIONS = ["neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised"]
FACTS = {
    "synthetic": False,
    "labels": EMOTIONS,
    "pretrained_encoder": "none",
    "epochs": 25,
    "best_epoch": 16,
    "seconds": 1234.5,
    "versions": {"torch": "2.11.0", "numpy": "2.4.6"},
    "command": "python recipes/train.py hparams/s1.yaml --corpus 'ra <v> dess'",
    "commit": "0123456789" * 4,
}


def write_fold(folder: Path, fold: int, skill: float, embeddings: bool = True, **keys: object) -> None:
    """A fold as a run leaves it: 2 or 3 actors, of more clips and better recognised in later folds; embeddings."""
    rng = np.random.default_rng([fold, round(1000 * skill), *f"{keys['strategy']}{keys['corpus']}".encode()])
    actors = [f"{fold:02d}-{i}" for i in range(2 + fold % 2)]
    table = pd.DataFrame(
        [(actor, emotion) for i, actor in enumerate(actors) for emotion in (1 + fold % 4 + i) * EMOTIONS],
        columns=["speaker", "emotion"],
    )
    table.insert(0, "id", [f"clip-{i}" for i in range(len(table))])
    right = rng.random(len(table)) < skill * (0.8 + 0.02 * fold)
    table["predicted"] = np.where(right, table.emotion, rng.choice(EMOTIONS, len(table)))
    path = folder / f"fold{fold}"
    path.mkdir(parents=True)
    table.assign(**dict.fromkeys(EMOTIONS, -2.0)).to_csv(path / "predictions.csv", index=False)
    metrics = {
        **FACTS,
        "fold": fold,
        "n_test": len(table),
        "accuracy": float((table.emotion == table.predicted).mean()),
        "uar": float(balanced_accuracy_score(table.emotion, table.predicted)),
        "macro_f1": float(f1_score(table.emotion, table.predicted, average="macro")),
        "confusion": confusion_matrix(table.emotion, table.predicted, labels=EMOTIONS).tolist(),
        "valid_accuracy": float(rng.uniform(skill, 1)),
        **keys,
    }
    if embeddings:
        centres = np.random.default_rng(0).normal(size=(len(EMOTIONS), 32))
        found = skill * centres[[EMOTIONS.index(e) for e in table.emotion]] + rng.normal(size=(len(table), 32))
        np.savez(path / "embeddings.npz", id=table.id.to_numpy(str), embedding=found.astype(np.float32))
    (path / "metrics.json").write_text(json.dumps(metrics))


@pytest.fixture(scope="session")
def results(tmp_path_factory) -> Path:
    """Results of S1, S3, S4 and S5 on RAVDESS, S1 on CREMA-D and on one's own corpus, and two sweeps."""
    root = tmp_path_factory.mktemp("re sults")
    folds = {"S1": range(1, 11), "S3": range(1, 4), "S4": range(2, 4), "S5": [2]}
    for strategy, numbers in folds.items():
        folder = root / strategy / "ravdess" / "1"
        for fold in numbers:
            write_fold(folder, fold, 0.4 + 0.1 * int(strategy[1]), strategy=strategy, corpus="ravdess", seed=1)
        (folder / "folds.csv.sha256").write_text(f"{strategy.lower() * 32}  folds.csv\n")
    for fold in (1, 2):
        write_fold(root / "S1" / "cremad" / "7", fold, 0.5, strategy="S1", corpus="cremad", seed=7, commit=None)
    own = {"strategy": "S1", "corpus": "<b>own", "seed": 1, "synthetic": True}
    write_fold(root / "S1" / "own" / "1", 1, 0.6, embeddings=False, **own)
    for setting, skill in {"clusters/4": 0.5, "clusters/10": 0.7, "alpha/0.05": 0.6, "alpha/0.1": 0.8}.items():
        for strategy in ("S3", "S5"):
            folder = root / "sweeps" / setting / strategy / "ravdess" / "1"
            for fold in [1, 2, 3] if setting == "clusters/4" else [1, 2]:
                write_fold(folder, fold, skill, strategy=strategy, corpus="ravdess", seed=1)
    return root


@pytest.fixture
def fold() -> Callable[..., None]:
    """Writer of one fold."""
    return write_fold
