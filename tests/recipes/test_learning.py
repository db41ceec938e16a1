"""Training learns: small strategies beat chance by far on the built-in corpus."""

import json

import pandas as pd
import pytest

SMALL = """\
extends: {strategy}.yaml
strategy: small
pretrained_encoder: none
vad: none
n_bins: 40
compute_features: !new:ser_plugins.MelSpectrogram
    n_mels: !ref <n_bins>
embedding_model: !new:ser_plugins.UtteranceEncoder
    backbone: !new:ser_plugins.SEResNet34
        channels: [8, 16, 32, 32]
        blocks: [1, 1, 1, 1]
        n_bins: !ref <n_bins>
    pooling: !new:ser_plugins.GhostVLAD
        clusters: !ref <clusters>
        ghost_clusters: !ref <ghost_clusters>
    embedding_size: !ref <embedding_size>
embedding_size: 64
crop_seconds: 1.0
number_of_epochs: 16
lr: 0.003
"""


EMOTIONS = ["happy", "sad"]


@pytest.fixture(scope="module")
def two(audio, tmp_path_factory):
    """The utterances of two emotions, as a table."""
    files = [(path, path.stem.split("-")) for path in sorted((audio / "synthetic").rglob("*.wav"))]
    rows = [(str(path), emotion, speaker) for path, (speaker, emotion, _) in files if emotion in EMOTIONS]
    file = tmp_path_factory.mktemp("two") / "two.csv"
    pd.DataFrame(rows, columns=["path", "emotion", "speaker"]).to_csv(file, index=False)
    return file


@pytest.mark.parametrize("strategy", ["s1", "s5"])
def test_a_small_strategy_learns_two_emotions(train, two, tmp_path, strategy):
    """Of 12 test utterances by 2 unheard speakers, chance gets 11 right once in 300 runs."""
    own = tmp_path / "small.yaml"
    own.write_text(SMALL.format(strategy=strategy))
    keys = dict.fromkeys(("channels", "embedding_size", "number_of_epochs", "crop_seconds"))
    corpus = {"corpus": "table", "data_folder": two, "wav_augment": "null", "feat_augment": "null", "mixup": "null"}
    fold = train(own.with_suffix(""), tmp_path / "out", **keys, **corpus) / "fold1"
    assert json.loads((fold / "metrics.json").read_text())["accuracy"] >= 11 / 12
