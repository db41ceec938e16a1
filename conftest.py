"""Fixtures for the examples in docstrings as well as for the tests."""

import os
from pathlib import Path

import pytest

# Processes that fill one cache of compiled functions at the same time can crash: each has its own. librosa uses numba.
if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    os.environ["NUMBA_CACHE_DIR"] = str(Path(__file__).parent / ".pytest_cache" / "numba" / worker)

TINY_S8 = """
audio_normalizer: !new:ser_plugins.SpeechNormalizer
    vad: none
compute_features: !new:ser_plugins.Spectrogram
    log: true
mean_var_norm: !new:ser_plugins.SpectrogramNorm
    speaker_normalization: features+embeddings
embedding_model: !new:ser_plugins.UtteranceEncoder
    backbone: !new:ser_plugins.SEResNet34
        channels: [4, 4, 4, 4]
        blocks: [1, 1, 1, 1]
    pooling: !new:ser_plugins.GhostVLAD
        input_size: 4
        clusters: 2
    embedding_size: 12
    speaker_normalization: features+embeddings
classifier: !new:ser_plugins.SoftmaxClassifier
    input_size: 12
    n_classes: 3
"""


@pytest.fixture(scope="session")
def tiny_s8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of ``model/``, a tiny S8 of random weights, and ``clips/``, two recordings of a second."""
    import numpy as np
    import soundfile
    import torch
    from hyperpyyaml import load_hyperpyyaml

    from ser_plugins import configuration
    from ser_plugins.model_folder.saving import inference_yaml, save_model_folder

    folder = tmp_path_factory.mktemp("tiny_s8")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        built = load_hyperpyyaml(TINY_S8)
    (folder / "s8.yaml").write_text(TINY_S8)
    yaml = inference_yaml(configuration.resolve(configuration.read(folder / "s8.yaml")))
    labels = ["neutral", "happy", "sad"]
    save_model_folder(folder / "model", yaml, built["embedding_model"], built["classifier"], labels)
    (folder / "clips").mkdir()
    for number, name in enumerate(("a.wav", "b.wav")):
        samples = np.random.default_rng(number).normal(0, 0.1, 16000)
        soundfile.write(folder / "clips" / name, samples, 16000)
    return folder
