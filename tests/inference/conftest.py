"""A tiny model of any weights, and sound files that are good and bad."""

import numpy as np
import pytest
import soundfile

from ser_plugins import load


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory, write_model):
    return write_model(tmp_path_factory.mktemp("inference") / "model", "s3")


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
