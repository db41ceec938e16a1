"""Validation of a metric loss, recomputed by plain loops."""

import speechbrain as sb
import torch
from speechbrain.dataio.batch import PaddedBatch
from torch.utils.data import DataLoader

from ser_plugins import TripletLoss
from ser_plugins.training.brain import EncoderBrain


class Features(torch.nn.Module):
    def forward(self, signal, lengths=None):
        return signal


class Encoder(torch.nn.Module):
    """A layer whose training mode embeds otherwise than its evaluation mode."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(6, 4)

    def forward(self, feats, lengths=None):
        return (self.layer(feats) + (torch.randn(4) if self.training else 0)).unsqueeze(1)


class Counter:
    direction = "max"

    def update_metric(self, value):
        self.value = value


def loader(signals, labels, size):
    rows = [
        {"id": str(i), "signal": signal, "label": torch.tensor([int(label)])}
        for i, (signal, label) in enumerate(zip(signals, labels, strict=True))
    ]
    return DataLoader(rows, batch_size=size, collate_fn=PaddedBatch)


@torch.no_grad()
def test_accuracy_is_that_of_the_nearest_centroid():
    torch.manual_seed(0)
    encoder, counter = Encoder(), Counter()
    names = ("compute_features", "mean_var_norm", "classifier")
    modules = {**{name: Features() for name in names}, "embedding_model": encoder}
    hparams = {"n_classes": 3, "embedding_size": 4, "metric_loss": TripletLoss(0.1), "epoch_counter": counter}
    brain = EncoderBrain(modules, hparams=hparams)
    known, known_labels = torch.randn(20, 6), torch.arange(20) % 3
    unknown, labels = torch.randn(30, 6), torch.arange(30) % 3
    brain.reference_loader = loader(known, known_labels, 7)
    brain.modules.train()
    brain.on_stage_start(sb.Stage.VALID)
    for batch in loader(unknown, labels, 8):
        brain.evaluate_batch(batch, sb.Stage.VALID)

    def embed(x):
        embedding = encoder.layer.weight @ x + encoder.layer.bias
        return embedding / embedding.norm()

    right = 0
    for x, label in zip(unknown, labels.tolist(), strict=True):
        cosines = []
        for k in range(3):
            centroid = sum(embed(y) for y, other in zip(known, known_labels.tolist(), strict=True) if other == k)
            cosines.append(float(embed(x) @ centroid / centroid.norm()))
        right += cosines.index(max(cosines)) == label
    assert brain.validate() == {"accuracy": right / 30}
    assert 0 < right < 30
