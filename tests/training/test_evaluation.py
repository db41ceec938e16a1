"""Tables of predictions: each row has an utterance and what is predicted for it."""

import numpy as np
import pandas as pd
import pytest
import torch
from speechbrain.augment.augmenter import Augmenter
from speechbrain.augment.time_domain import SpeedPerturb

from ser_plugins.corpora.corpus import Corpus
from ser_plugins.evaluation.measures import measure_each
from ser_plugins.training.brain import EncoderBrain
from ser_plugins.training.evaluation import embed, embed_augmented, predictions
from ser_plugins.training.step_seeds import StepSeeds

pytestmark = pytest.mark.filterwarnings("ignore:y_pred contains classes")
CLASSES = ["neutral", "happy", "sad", "angry"]


def test_each_row_has_an_utterance_and_its_prediction():
    table = pd.DataFrame({"id": ["a", "b"], "path": ["x", "y"], "speaker": ["01", "02"], "emotion": ["sad", "happy"]})
    table.index = [9, 4]
    scores = torch.randn(2, 1, 4).log_softmax(-1)
    scores[1] = torch.tensor([0.1, 0.6, 0.2, 0.1]).log()
    found = predictions(table, scores, CLASSES)
    assert found.columns.tolist() == ["id", "speaker", "emotion", "predicted", *CLASSES]
    assert found[["id", "speaker", "emotion"]].to_numpy().tolist() == [["a", "01", "sad"], ["b", "02", "happy"]]
    assert found["predicted"].tolist() == [CLASSES[int(scores[0].argmax())], "happy"]
    np.testing.assert_allclose(np.exp(found[CLASSES]).sum(axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(found[CLASSES], scores[:, 0])


def test_each_merged_corpus_counts_its_own_emotions():
    """What is most probable of all is angry, of which the first corpus knows nothing, or neutral, of the second."""
    rows = [("a", "one", "sad"), ("b", "two", "sad"), ("c", "one", "happy"), ("d", "two", "angry")]
    table = pd.DataFrame(rows, columns=["id", "corpus", "emotion"]).assign(speaker="s", path="p", fault="")
    labels = {"one": ("happy", "sad", "neutral"), "two": ("sad", "angry")}
    corpora = [Corpus(name, own, table[table["corpus"] == name]) for name, own in labels.items()]
    scores = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1]])
    found = predictions(table, scores[:, None].log(), CLASSES, corpora)
    assert found.columns.tolist() == ["id", "speaker", "emotion", "corpus", "predicted", *CLASSES]
    assert found["predicted"].tolist() == ["sad", "sad", "sad", "sad"]
    np.testing.assert_allclose(np.exp(found[CLASSES]), scores)
    each = measure_each(found, corpora)
    assert {name: (one["n_test"], one["accuracy"], one["uar"]) for name, one in each.items()} == {
        "one": (2, 0.5, 0.5),
        "two": (2, 0.5, 0.5),
    }
    assert each["one"]["macro_f1"] == pytest.approx((2 / 3 + 0) / 2)  # sad: precision 1/2, recall 1; happy: neither
    assert each["one"]["confusion"] == [[0, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert each["two"]["confusion"] == [[1, 0], [1, 0]]


class Same(torch.nn.Module):
    def forward(self, x, lengths=None):
        return x


class Sums(torch.nn.Module):
    """Sum and number of samples, in evaluation mode only."""

    def forward(self, wavs, relative):
        assert not self.training and not torch.is_grad_enabled()
        return torch.stack([wavs.sum(1), (relative * wavs.shape[1]).round()], dim=1)[:, None].bfloat16()


class Middle(torch.nn.Module):
    """The sample in the middle."""

    def forward(self, wavs, relative):
        return wavs[:, wavs.shape[1] // 2].reshape(-1, 1, 1)


@pytest.mark.parametrize("batch_size", [1, 2, 32])
@pytest.mark.parametrize("centered", [False, True])
def test_embeddings_are_in_the_order_of_the_table(tmp_path, batch_size, centered):
    lengths, speakers = [30, 10, 50, 20, 40], ["x", "y", "x", "y", "x"]
    for i, samples in enumerate(lengths):
        np.save(tmp_path / f"{i}.npy", np.full(samples, i + 1, dtype=np.float32))
    table = pd.DataFrame({"id": ["c", "a", "e", "b", "d"], "speaker": speakers, "emotion": "sad"})
    table["prepared"] = [tmp_path / f"{i}.npy" for i in range(5)]
    modules = {"compute_features": Same(), "mean_var_norm": Same(), "embedding_model": Sums()}
    brain = EncoderBrain(modules, hparams={"speaker_normalization": "features+embeddings" if centered else "none"})
    brain.modules.train()
    found = embed(brain, table, ["sad"], batch_size)
    assert found.shape == (5, 1, 2) and found.dtype == torch.float32
    expected = np.array([[(i + 1) * samples, samples] for i, samples in enumerate(lengths)], dtype=float)
    if centered:
        for rows in ([0, 2, 4], [1, 3]):
            expected[rows] -= expected[rows].mean(0)
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-6)


class Copies:
    """Stands for SpeechBrain's augmenter: each utterance once as it is, and once plus a random number."""

    def __call__(self, wavs, lengths):
        return torch.cat([wavs, wavs + torch.rand(len(wavs), 1)]), torch.cat([lengths, lengths])

    def replicate_labels(self, labels):
        return torch.cat([labels, labels])


def test_augmented_embeddings_are_crops_and_copies_of_their_rows_and_repeatable(tmp_path):
    for i in range(5):
        np.save(tmp_path / f"{i}.npy", np.full(40, 10 * i, dtype=np.float32))
    table = pd.DataFrame({"id": ["c", "a", "e", "b", "d"], "speaker": "x", "emotion": "sad"})
    table["prepared"] = [tmp_path / f"{i}.npy" for i in range(5)]
    modules = {"compute_features": Same(), "mean_var_norm": Same(), "embedding_model": Sums()}
    settings = {"wav_augment": Copies(), "mixup": 0.4, "crop_seconds": 16 / 16000, "step_seeds": StepSeeds(1)}
    brain = EncoderBrain(modules, hparams=settings)
    found, rows = embed_augmented(brain, table, ["sad"], passes=2, batch_size=3)
    assert found.shape == (20, 1, 2) and sorted(rows.tolist()) == sorted([*range(5)] * 4)
    values = found[:, 0].numpy() / 16  # the mean of a crop, and its length as a share
    np.testing.assert_array_equal(values[:, 1], 1)
    extra = values[:, 0] - 10 * rows.numpy()  # nothing is mixed: each is its own row's value and up to 1
    assert (extra >= 0).all() and (extra <= 1.01).all() and (extra == 0).sum() == 10
    assert len(set(extra.tolist())) > 5  # the passes differ
    again, _ = embed_augmented(brain, table, ["sad"], passes=2, batch_size=3)
    assert torch.equal(found, again)


def test_augmented_embeddings_have_rows_under_the_augmenters_of_speechbrain(tmp_path):
    """The last batch is smaller than the others; speed does not change the value that an utterance has throughout."""
    for i in range(7):
        np.save(tmp_path / f"{i}.npy", np.full(400, i + 1, dtype=np.float32))
    table = pd.DataFrame({"id": [*"cgaebfd"], "speaker": "x", "emotion": "sad"})
    table["prepared"] = [tmp_path / f"{i}.npy" for i in range(7)]
    modules = {"compute_features": Same(), "mean_var_norm": Same(), "embedding_model": Middle()}
    speeds = [SpeedPerturb(16000, speeds=[90, 110])]
    settings = {"wav_augment": Augmenter(augmentations=speeds, concat_original=True), "step_seeds": StepSeeds(1)}
    settings["crop_seconds"] = 320 / 16000
    found, rows = embed_augmented(EncoderBrain(modules, hparams=settings), table, ["sad"], passes=2, batch_size=4)
    assert len(found) == len(rows) == 2 * 2 * 7
    np.testing.assert_allclose(found[:, 0, 0], rows + 1, rtol=0.02)
