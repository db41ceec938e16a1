"""S6, S7, S8, the competitors of the paper's Table 3 and its other systems, end to end on a table of two emotions."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from ruamel.yaml import YAML

from ser_plugins import load
from ser_plugins.audio.speaker import SpeakerStatistics

SLOW = ["kumar", "ghaleb", "huang", "s6", "s7", "ma", "lian", "mirsamadi", "tzinis", "farooq"]
STRATEGIES = [
    "bhavan",
    "chi",
    "huang2018",
    "issa",
    "s8",
    *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW),
]
OUTPUTS = {"metrics.json", "predictions.csv", "embeddings.npz", "hyperparams.yaml", "model"}


@pytest.fixture
def own(table, tmp_path) -> dict[str, object]:
    """Six speakers of two emotions, one of them rarer in training."""
    table[~((table.emotion == "sad") & table.path.str.contains("-2"))].to_csv(tmp_path / "own.csv", index=False)
    return {"corpus": "table", "data_folder": tmp_path / "own.csv", "n_folds": 3}


def statistics(model, table, wavs):
    """Statistics of the speaker of each utterance: features of all utterances, then the mean embedding by loops."""
    mode = model.mods.mean_var_norm.speaker_normalization if hasattr(model.mods.mean_var_norm, "axis") else "none"
    if mode == "none":
        return [None] * len(wavs)
    found = {}
    for speaker, rows in table.groupby("speaker").indices.items():
        spoken = [model.mods.compute_features(wavs[i][None]) for i in rows]
        one = SpeakerStatistics(SpeakerStatistics.measure_features(spoken))
        if mode == "features+embeddings":
            embeddings = [model.encode_batch(wavs[i], speaker=one).flatten() for i in rows]
            one = SpeakerStatistics(one.features, sum(embeddings) / len(embeddings))
        found[speaker] = one
    return [found[speaker] for speaker in table.speaker]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_strategy_leaves_a_model_that_decides_as_the_run_did(train, own, tmp_path, strategy):
    changes = {"kumar": {"channels": "[8, 8, 16, 16]"}}.get(strategy, {})
    changes |= {"crop_seconds": "null"} if strategy in {"issa", "ghaleb", "farooq"} else {}
    fold = train(strategy, tmp_path / "out", **own, **changes) / "fold1"
    assert {path.name for path in fold.iterdir()} >= OUTPUTS
    metrics, table = json.loads((fold / "metrics.json").read_text()), pd.read_csv(fold / "predictions.csv")
    assert metrics["strategy"] == strategy.capitalize() and metrics["pretrained_encoder"] == "none"
    mode = {"s7": "features", "s8": "features+embeddings"}.get(strategy, "none")
    assert metrics["speaker_normalization"] == mode
    assert metrics["accuracy"] == pytest.approx((table.emotion == table.predicted).mean())

    classifier = torch.load(fold / "model" / "classifier.ckpt", weights_only=True)
    assert all(isinstance(weight, torch.Tensor) for weight in classifier.values())
    model = load(fold / "model", device="cpu")
    kept = np.load(fold / "embeddings.npz")["embedding"]
    wavs = [model.load_audio(tmp_path / f"{name}.wav") for name in table.id]
    speakers = statistics(model, table, wavs)
    assert all(one is not None for one in speakers) == (mode != "none")
    for row, wav, speaker, embedding in zip(table.itertuples(), wavs, speakers, kept, strict=True):
        scores, _, _, [label] = model.classify_batch(wav, speaker=speaker)
        np.testing.assert_allclose(scores.flatten(), [row.happy, row.sad], rtol=1e-4, atol=1e-4)
        assert label == row.predicted
        rounding = max(1e-4, 1e-5 * np.abs(embedding).max())  # Issa's, of raw features, are in hundreds
        found = model.encode_batch(wav, speaker=speaker).flatten()
        np.testing.assert_allclose(found, embedding, rtol=1e-4, atol=rounding)
    for _, rows in table.groupby("speaker"):
        batch = torch.nn.utils.rnn.pad_sequence([wavs[i] for i in rows.index], batch_first=True)
        lengths = torch.tensor([len(wavs[i]) / batch.shape[1] for i in rows.index])
        scores, *_ = model.classify_batch(batch, lengths, speaker=speakers[rows.index[0]])
        np.testing.assert_allclose(scores, rows[["happy", "sad"]], rtol=1e-4, atol=1e-4)


def test_the_prior_is_that_of_the_training_part(train, own, tmp_path):
    fold = train("huang", tmp_path / "out", **own, number_of_epochs=1) / "fold1"
    used = YAML(typ="safe").load((fold / "hyperparams.yaml").read_text().replace("!", "# !"))
    folds = pd.read_csv(fold.parent / "folds.csv")
    assert used["prior"] == pytest.approx([2 / 3, 1 / 3]) and len(folds) == 18
