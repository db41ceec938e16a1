"""S6, S7, S8 and the competitors of the paper's Table 3, end to end on a table of two emotions."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from ruamel.yaml import YAML
from speechbrain.inference.classifiers import EncoderClassifier

STRATEGIES = ["bhavan", "issa", "kumar", "ghaleb", "huang", "s6", "s7", "s8"]
TOLD = {"mean_var_norm": "!new:ser_plugins.SpectrogramNorm {axis: speaker}"}  # what s7.yaml does to s6.yaml
OUTPUTS = {"metrics.json", "predictions.csv", "embeddings.npz", "hyperparams.yaml", "model"}


@pytest.fixture
def own(table, tmp_path) -> dict[str, object]:
    """Six speakers of two emotions, one of them rarer in training."""
    table[~((table.emotion == "sad") & table.path.str.contains("-2"))].to_csv(tmp_path / "own.csv", index=False)
    return {"corpus": "table", "data_folder": tmp_path / "own.csv", "n_folds": 3}


@pytest.mark.parametrize(("strategy", "norm"), [*((one, {}) for one in STRATEGIES), ("bhavan", TOLD)])
def test_each_strategy_leaves_a_model_that_decides_as_the_run_did(train, own, tmp_path, strategy, norm):
    whole = {"crop_seconds": "null"} if strategy in {"issa", "ghaleb"} else {}
    fold = train(strategy, tmp_path / "out", **own, **whole, **norm, pretrained_encoder="none") / "fold1"
    told = strategy in {"s7", "s8"} or norm == TOLD
    assert {path.name for path in fold.iterdir()} >= OUTPUTS
    metrics, table = json.loads((fold / "metrics.json").read_text()), pd.read_csv(fold / "predictions.csv")
    assert metrics["strategy"] == strategy.capitalize() and metrics["pretrained_encoder"] == "none"
    assert metrics["told_speakers"] == told
    assert 0 <= metrics["valid_accuracy"] <= 1
    assert metrics["accuracy"] == pytest.approx((table.emotion == table.predicted).mean())

    classifier = torch.load(fold / "model" / "classifier.ckpt", weights_only=True)
    assert all(isinstance(weight, torch.Tensor) for weight in classifier.values())
    model = EncoderClassifier.from_hparams(source=str(fold / "model"), savedir=str(tmp_path / "fetched"))
    kept = np.load(fold / "embeddings.npz")["embedding"]
    wavs = [model.load_audio(str(next(Path(tmp_path).glob(f"{name}.wav"))), savedir=str(tmp_path)) for name in table.id]
    norm, encoder, voices = model.mods.mean_var_norm, model.mods.embedding_model, None
    centres = [None] * len(wavs)
    if told:
        spoken = [model.mods.compute_features(wav[None]) for wav in wavs]
        by_speaker = {
            one: norm.measure(spoken[i] for i in rows) for one, rows in table.groupby("speaker").indices.items()
        }
        voices = torch.stack([by_speaker[one] for one in table.speaker])
    if strategy == "s8":
        norm.speaker, lengths = voices, torch.tensor([len(wav) for wav in wavs])
        batch = torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True)
        raw = model.encode_batch(batch, lengths / lengths.max()).squeeze(1)
        centres = [raw[table.speaker.to_numpy() == one].mean(0) for one in table.speaker]
    for i, (row, wav, embedding) in enumerate(zip(table.itertuples(), wavs, kept, strict=True)):
        norm.speaker, encoder.speaker = None if voices is None else voices[i], centres[i]
        scores, _, _, label = model.classify_batch(wav[None])
        np.testing.assert_allclose(scores.flatten(), [row.happy, row.sad], rtol=1e-4, atol=1e-4)
        assert np.ravel(label)[0] == row.predicted
        rounding = max(1e-4, 1e-5 * np.abs(embedding).max())  # Issa's, of raw features, are in hundreds
        np.testing.assert_allclose(model.encode_batch(wav[None]).flatten(), embedding, rtol=1e-4, atol=rounding)
    batch = torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True)
    lengths = torch.tensor([len(wav) / batch.shape[1] for wav in wavs])
    norm.speaker, encoder.speaker = voices, torch.stack(centres) if strategy == "s8" else None
    scores, *_ = model.classify_batch(batch, lengths)
    np.testing.assert_allclose(scores.squeeze(1), table[["happy", "sad"]], rtol=1e-4, atol=1e-4)


def test_the_prior_is_that_of_the_training_part(train, own, tmp_path):
    fold = train("huang", tmp_path / "out", **own, number_of_epochs=1) / "fold1"
    used = YAML(typ="safe").load((fold / "hyperparams.yaml").read_text().replace("!", "# !"))
    folds = pd.read_csv(fold.parent / "folds.csv")
    assert used["prior"] == pytest.approx([2 / 3, 1 / 3]) and len(folds) == 18
