"""The sparse auto-encoder: its loss against plain formulas, and what it learns."""

from functools import partial

import numpy as np
import pytest
import torch
from speechbrain.dataio.batch import PaddedBatch
from torch import nn
from torch.utils.data import DataLoader

from ser_plugins import GhostVLAD, MeanPooling, PatchEncoder, SEResNet34, UtteranceEncoder
from ser_plugins.errors import InputError
from ser_plugins.training import AutoEncoder, ReconstructionLoss
from ser_plugins.training.reconstruction import ReconstructionBrain


def auto_encoder(codes=4):
    return AutoEncoder(UtteranceEncoder(PatchEncoder(5, width=3, codes=codes, segment=2), MeanPooling(), None))


def test_the_loss_is_the_squared_error_and_the_divergence_of_the_activations():
    rng = np.random.default_rng(0)
    decoded, patches = rng.normal(size=(2, 7, 6))
    codes = rng.uniform(0.01, 0.9, size=(7, 4))
    error = sum((decoded[i, j] - patches[i, j]) ** 2 for i in range(7) for j in range(6)) / 42
    penalty = 0.0
    for neuron in range(4):
        active = sum(codes[i, neuron] for i in range(7)) / 7
        penalty += (0.1 * np.log(0.1 / active) + 0.9 * np.log(0.9 / (1 - active))) / 4
    loss, found = ReconstructionLoss(sparsity=0.1, weight=2.5)(*map(torch.from_numpy, (decoded, patches, codes)))
    assert float(found) == pytest.approx(error)
    assert float(loss) == pytest.approx(error + 2.5 * penalty)


def test_the_penalty_is_finite_where_a_neuron_is_always_or_never_active():
    codes = torch.tensor([[0.0, 1.0]], requires_grad=True)
    loss, _ = ReconstructionLoss()(torch.zeros(1, 2), torch.zeros(1, 2), codes)
    loss.backward()
    assert loss.isfinite() and codes.grad.isfinite().all()


@pytest.mark.parametrize(("sparsity", "weight"), [(0.0, 1.0), (1.0, 1.0), (0.1, -1.0)])
def test_settings_out_of_range_are_refused(sparsity, weight):
    with pytest.raises(InputError, match="give a number"):
        ReconstructionLoss(sparsity, weight)


def test_only_patches_can_be_reconstructed():
    with pytest.raises(InputError, match="SEResNet34 has no patches to reconstruct; give a PatchEncoder"):
        AutoEncoder(UtteranceEncoder(SEResNet34((8, 8, 16, 16), (1, 1, 1, 1)), GhostVLAD()))


def test_padding_is_neither_encoded_nor_reconstructed():
    torch.manual_seed(0)
    model, feats = auto_encoder(), torch.randn(2, 10, 5)
    feats[1, 6:] = 0
    together = model(feats, torch.tensor([1.0, 0.6]))
    for part, first, second in zip(together, model(feats[:1]), model(feats[1:, :6]), strict=True):
        torch.testing.assert_close(part, torch.cat([first, second]))


def test_it_learns_to_reconstruct_with_sparse_codes():
    """Batches of one pattern or another at each frame: two of the neurons suffice."""
    torch.manual_seed(0)
    patterns = torch.tensor([[2.0, 0.0, 0.0, 2.0, 0.0], [0.0, -2.0, 2.0, 0.0, 0.0]])
    crops = [{"signal": patterns[torch.randint(2, (12,))]} for _ in range(160)]
    loader = DataLoader(crops, batch_size=8, collate_fn=PaddedBatch)
    modules = {"compute_features": nn.Identity(), "mean_var_norm": Unchanged(), "embedding_model": auto_encoder(16)}
    hparams = {"reconstruction_loss": ReconstructionLoss(sparsity=0.2, weight=0.5)}
    options = {"device": "cpu", "noprogressbar": True}
    brain = ReconstructionBrain(modules, partial(torch.optim.Adam, lr=0.02), hparams, options)
    errors = []
    for epochs in (range(1, 2), range(2, 12)):
        brain.fit(epochs, loader, loader)
        errors.append(brain.validate()["reconstruction_error"])
    assert errors[1] < 0.25 * errors[0]
    assert brain.train_stats["activation"] == pytest.approx(0.2, abs=0.1)


class Unchanged(nn.Module):
    def forward(self, feats, lengths):
        return feats
