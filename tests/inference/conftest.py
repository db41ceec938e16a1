"""A tiny model of any weights, and sound files that are good and bad."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from ser_plugins import configuration, load
from ser_plugins.hub.folder import inference_yaml, save_model_folder

HPARAMS = Path(__file__).parents[2] / "hparams"
LABELS = ["neutral", "happy", "sad"]
SIZES = {"channels": [4, 4, 8, 8], "descriptor_size": 8, "embedding_size": 12}


def write(folder, seed=1, **changes):
    settings = {**SIZES, "labels": LABELS, "polarity": {"happy": "positive", "sad": "negative"}, "vad": "none"}
    tree = configuration.merge(configuration.read(HPARAMS / "s3.yaml"), {**settings, **changes}, "")
    torch.manual_seed(seed)
    built = configuration.build(tree)
    torch.nn.init.normal_(built["classifier"].linear.weight)
    yaml = inference_yaml(configuration.resolve(tree), HPARAMS / "inference.yaml")
    save_model_folder(folder, yaml, built["embedding_model"], built["classifier"], tree["labels"])
    return folder


@pytest.fixture(scope="session")
def write_model():
    """Writer of model folders: folder, seed, settings."""
    return write


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("inference") / "model")


@pytest.fixture(scope="session")
def model(model_folder):
    return load(model_folder, device="cpu")


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    """A folder of clips of many lengths and rates, and some that are none."""
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
