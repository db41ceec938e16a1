"""Running statistics of the batch normalisation against a plain loop, and what PyTorch's tools do with it."""

import pytest
import torch
from torch.optim.swa_utils import update_bn

from ser_plugins import FeatureCNN, GhostVLAD, SEResNet34, UtteranceEncoder
from ser_plugins.models.batchnorm import MaskedBatchNorm


def batches(count, dtype=torch.float64):
    """Batches [6, 3, 4] of a small variance about a mean that moves, and the frames that are not padded."""
    draw = torch.Generator().manual_seed(0)
    for i in range(count):
        x = 0.01 * torch.randn(6, 3, 4, generator=draw, dtype=torch.float64) + 0.1 * i
        frames = torch.randint(1, 5, (6,), generator=draw)
        yield x.to(dtype), (torch.arange(4) < frames[:, None])[:, None]


def loop(count, momentum, masked):
    """Mean and variance of each batch, and their average by shares of max(momentum, 1 / n)."""
    mean = var = None
    for n, (x, mask) in enumerate(batches(count), 1):
        rows = [x[i, :, t] for i in range(6) for t in range(4) if not masked or mask[i, 0, t]]
        center = sum(rows) / len(rows)
        spread = sum((row - center) ** 2 for row in rows) / (len(rows) - 1)
        share = max(momentum or 0.0, 1 / n)
        mean = share * center + (1 - share) * (0 if mean is None else mean)
        var = share * spread + (1 - share) * (0 if var is None else var)
    return mean, var


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("momentum", [0.1, 0.3, None])
@pytest.mark.parametrize("count", [1, 3, 25])
def test_running_statistics_are_those_of_the_loop(count, momentum, masked):
    norm = MaskedBatchNorm(3, momentum=momentum).double()
    for x, mask in batches(count):
        norm(x, mask if masked else None)
    mean, var = loop(count, momentum, masked)
    torch.testing.assert_close(norm.running_mean, mean, atol=1e-12, rtol=1e-9)
    torch.testing.assert_close(norm.running_var, var, atol=1e-12, rtol=1e-9)
    assert norm.num_batches_tracked == count


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_statistics_of_other_precisions(dtype):
    norm = MaskedBatchNorm(3).to(dtype)
    for x, mask in batches(5, dtype):
        assert norm(x, mask).dtype == dtype and norm(x).dtype == dtype
    exact = MaskedBatchNorm(3).double()
    for x, mask in batches(5, dtype):
        exact(x.double(), mask)
        exact(x.double())
    assert norm.running_mean.dtype == dtype
    close = {"atol": 1e-4, "rtol": 1e-3} if dtype == torch.float32 else {"atol": 2e-3, "rtol": 0.02}
    torch.testing.assert_close(norm.running_mean.double(), exact.running_mean, **close)


def test_update_bn_measures_the_statistics_of_all_batches():
    """That of PyTorch: the mean over the batches, whatever came before; the momentum stays."""
    norm, given = MaskedBatchNorm(3).double(), [x for x, _ in batches(12)]
    norm(given[0] + 100)
    update_bn(given, norm)
    mean, var = loop(12, None, False)
    torch.testing.assert_close(norm.running_mean, mean)
    torch.testing.assert_close(norm.running_var, var)
    assert norm.momentum == 0.1


def test_conversion_to_sync_batch_norm_leaves_it():
    """SpeechBrain's Brain converts each module where there are several processes."""
    modules = [FeatureCNN(40), UtteranceEncoder(SEResNet34(blocks=(1, 1, 1, 1)), GhostVLAD())]
    for module in modules:
        before = dict(module.named_modules())
        other = torch.nn.SyncBatchNorm.convert_sync_batchnorm(torch.nn.ModuleDict({"one": module}))["one"]
        assert all(before[name] is part for name, part in other.named_modules())
    plain = torch.nn.SyncBatchNorm.convert_sync_batchnorm(torch.nn.Sequential(torch.nn.BatchNorm1d(3)))
    assert isinstance(plain[0], torch.nn.SyncBatchNorm)  # all others are converted as ever


def test_evaluation_follows_training_at_once():
    """Evaluation mode uses what a few steps have learned."""
    torch.manual_seed(0)
    labels = torch.arange(16) % 4
    feats = torch.rand(16, 48, 40)
    for row, label in zip(feats, labels.tolist(), strict=True):
        row[:, 10 * label : 10 * label + 10] *= 2
    feats = feats - feats.mean()
    encoder = UtteranceEncoder(SEResNet34((8, 8, 16, 32), (1, 1, 1, 1), n_bins=40), GhostVLAD(), 24)
    head = torch.nn.Linear(24, 4)
    optimizer = torch.optim.Adam([*encoder.parameters(), *head.parameters()], 3e-3)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        losses.append(torch.nn.functional.cross_entropy(head(encoder(feats).squeeze(1)), labels))
        losses[-1].backward()
        optimizer.step()
    encoder.eval()
    with torch.no_grad():
        scores = head(encoder(feats).squeeze(1))
    assert losses[-1] < 0.2
    assert torch.nn.functional.cross_entropy(scores, labels) < 0.4  # 1.38 is chance


@pytest.mark.parametrize("lengths", [None, [1.0, 1.0], [1.0, 0.4]])
@pytest.mark.parametrize("train", [False, True])
def test_one_graph_holds_the_encoder(train, lengths):
    """``fullgraph``: nothing in it waits for a value."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    encoder = UtteranceEncoder(SEResNet34((4, 4, 4, 8), (1, 1, 1, 1), n_bins=40), GhostVLAD(), 6).train(train)
    feats, lengths = torch.rand(2, 48, 40), None if lengths is None else torch.tensor(lengths)
    state = {name: value.clone() for name, value in encoder.state_dict().items()}
    found = torch.compile(encoder, backend="eager", fullgraph=True)(feats, lengths)
    after = {name: value.clone() for name, value in encoder.state_dict().items()}
    encoder.load_state_dict(state)
    torch.testing.assert_close(found, encoder(feats, lengths), atol=1e-5, rtol=1e-4)
    for name, value in encoder.state_dict().items():
        torch.testing.assert_close(after[name], value, atol=1e-6, rtol=1e-4)
