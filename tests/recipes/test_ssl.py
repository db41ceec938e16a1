"""Self-supervised networks end to end, on a table of two emotions, with a tiny network instead of a real one."""

import json
import shutil
import socket
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
import torch
from safetensors.torch import load_file
from speechbrain.inference.classifiers import EncoderClassifier

import ser_plugins
from ser_plugins import CAMPPlus
from ser_plugins.errors import InputError
from ser_plugins.model_folder.convert import convert_campplus
from ser_plugins.model_folder.lineage import read_lineage

SCORES = ["happy", "sad"]


@pytest.fixture
def own(table, write_ssl, tmp_path) -> dict[str, object]:
    """Six speakers of two emotions, and a pre-trained network."""
    source = write_ssl(tmp_path / "source", feat_extract_norm="group")
    network = {"ssl_source": source}
    return {"corpus": "table", "data_folder": tmp_path / "own.csv", "n_folds": 3, "number_of_epochs": 1, **network}


@pytest.mark.parametrize("freeze", [True, False])
def test_the_model_folder_needs_neither_the_source_nor_a_network(train, own, tmp_path, monkeypatch, freeze):
    options = {"freeze": freeze} if freeze else {"freeze": False, "backbone_lr_factor": 0.5}
    fold = train("ssl", tmp_path / "out", **own, **options) / "fold1"
    metrics, table = json.loads((fold / "metrics.json").read_text()), pd.read_csv(fold / "predictions.csv")
    assert (metrics["strategy"], metrics["pretrained_encoder"]) == ("SSL", str(own["ssl_source"]))

    first, last = load_file(own["ssl_source"] / "model.safetensors"), torch.load(fold / "model/embedding_model.ckpt")
    same = {
        name: torch.equal(first[name], last[f"backbone.network.{name}"]) for name in set(first) - {"masked_spec_embed"}
    }
    assert all(same[name] for name in same if freeze or name.startswith("feature_extractor"))
    assert freeze or not same["encoder.layers.1.attention.v_proj.weight"]
    assert last["backbone.layer_weights"].any()

    def refuse(*_):
        raise OSError("no network")

    shutil.rmtree(own["ssl_source"])
    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert str(own["ssl_source"]) not in (fold / "model" / "hyperparams.yaml").read_text()
    model = EncoderClassifier.from_hparams(source=str(fold / "model"), savedir=str(tmp_path / "fetched"))
    kept = np.load(fold / "embeddings.npz")["embedding"]
    wavs = [model.load_audio(str(next(Path(tmp_path).glob(f"{name}.wav"))), savedir=str(tmp_path)) for name in table.id]
    batch = torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True)
    lengths = torch.tensor([len(wav) / batch.shape[1] for wav in wavs])
    scores, _, _, labels = model.classify_batch(batch, lengths)
    np.testing.assert_allclose(scores.squeeze(1), table[SCORES], atol=1e-5)
    assert np.ravel(labels).tolist() == table.predicted.tolist()
    np.testing.assert_allclose(model.encode_batch(batch, lengths).squeeze(1), kept, atol=1e-5)


def test_weights_of_another_run_are_taken_over(train, own, tmp_path):
    """From one corpus to the next: the folder of a run is an encoder as any other."""
    first = train("ssl", tmp_path / "first", **own) / "fold1"
    again = {"pretrained_encoder": first / "model", "number_of_epochs": 1}
    second = train("ssl", tmp_path / "second", **{**own, **again}) / "fold1"
    metrics = json.loads((second / "metrics.json").read_text())
    assert metrics["pretrained_encoder"] == str(first / "model")
    counts = metrics["transferred"]
    assert counts["matched"] == len(torch.load(first / "model/embedding_model.ckpt")) and not counts["missing"]


def test_a_source_that_is_none_is_told_before_any_work(train, own, tmp_path):
    with pytest.raises(InputError, match=f"{tmp_path} gives no pre-trained network"):
        train("ssl", tmp_path / "out", **{**own, "ssl_source": tmp_path})
    assert not (tmp_path / "out").exists()


def test_a_joint_probe_holds_the_weights_of_both_networks(train, own, write_ssl, tmp_path):
    torch.manual_seed(4)
    whole, campplus = CAMPPlus(block=None), tmp_path / "campplus"
    torch.save(whole.state_dict(), tmp_path / "campplus.pt")
    convert_campplus(tmp_path / "campplus.pt", campplus)
    steps = {"conv_kernel": [10, 9, 9], "conv_stride": [5, 8, 8]}  # frames of 20 ms, as those of CAM++
    own |= {
        "ssl_source": write_ssl(tmp_path / "rate", **steps),
        "layer": 1,
        "pretrained_encoder": campplus,
        "crop_seconds": None,
    }
    del own["number_of_epochs"]
    fold = train("probe_joint", tmp_path / "out", **own) / "fold1"
    metrics, table = json.loads((fold / "metrics.json").read_text()), pd.read_csv(fold / "predictions.csv")
    assert metrics["pretrained_encoder"] == f"{campplus}, {own['ssl_source']}"
    first, second, last = read_lineage(fold / "model" / "embedding_model.ckpt")
    assert (first.strategy, first.start) == ("weights of rate", str(own["ssl_source"]))  # of unknown origin
    assert second == read_lineage(campplus / "embedding_model.ckpt")[0] and last.run_id == metrics["run_id"]

    shutil.rmtree(own["ssl_source"])
    shutil.rmtree(campplus)
    wavs = [torch.from_numpy(sf.read(tmp_path / f"{name}.wav", dtype="float32")[0]) for name in table.id]
    model = ser_plugins.load(fold / "model")
    found = model.mods.embedding_model.state_dict()["backbone.branches.campplus.2.head.conv1.weight"]
    assert torch.equal(found, whole.state_dict()["head.conv1.weight"])
    for wav, expected in zip(wavs, table[SCORES].to_numpy(), strict=True):
        np.testing.assert_allclose(model.classify_batch(wav[None])[0][0], expected, atol=1e-2)  # stored in half
