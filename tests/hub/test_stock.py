"""A model folder under SpeechBrain's own interface: left as it is, without network, without symbolic links."""

import os
import socket

import pytest
import soundfile
import torch
from speechbrain.inference.classifiers import EncoderClassifier
from speechbrain.utils.fetching import LocalStrategy


def refuse(*_, **__):
    raise AssertionError("a socket or a symbolic link was used")


def contents(folder):
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}


@pytest.fixture
def wav(tmp_path):
    torch.manual_seed(0)
    soundfile.write(tmp_path / "utterance.wav", 0.1 * torch.randn(30000, 2).numpy(), 44100)
    return str(tmp_path / "utterance.wav")


@pytest.mark.parametrize(
    "options",
    [{}, {"savedir": "fetched", "local_strategy": LocalStrategy.COPY}, {"local_strategy": LocalStrategy.NO_LINK}],
    ids=["no place of its own", "copied", "not linked"],
)
def test_files_batches_and_embeddings_of_a_read_only_folder(model, wav, tmp_path, monkeypatch, options):
    before = contents(model)
    for path in (*model.iterdir(), model):
        path.chmod(0o555)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(os, "symlink", refuse)
    stock = EncoderClassifier.from_hparams(source=str(model), **options)
    scores, _, index, [label] = stock.classify_file(wav)
    assert scores.shape == (1, 3) and label == ["neutral", "happy", "sad"][int(index)]
    torch.testing.assert_close(scores.exp().sum(), torch.tensor(1.0))
    samples = stock.load_audio(wav)[None]
    batch = torch.cat([torch.nn.functional.pad(samples, (0, 5000)), torch.randn(1, samples.shape[1] + 5000)])
    lengths = torch.tensor([samples.shape[1] / batch.shape[1], 1.0])
    torch.testing.assert_close(stock.classify_batch(batch, lengths)[0][0], scores[0], atol=1e-5, rtol=0)
    embeddings = stock.encode_batch(batch, lengths)
    assert embeddings.shape == (2, 1, 12)
    torch.testing.assert_close(embeddings[:1], stock.encode_batch(samples), atol=1e-5, rtol=0)
    assert contents(model) == before
    model.chmod(0o755)
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))
