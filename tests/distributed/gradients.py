"""Run by torchrun: the gradients of two processes with parts of a batch are those of one with all of it."""

import sys

import torch
from pytorch_metric_learning.miners import BatchHardMiner
from pytorch_metric_learning.utils.distributed import DistributedMinerWrapper
from torch.nn.parallel import DistributedDataParallel

from ser_plugins import (
    ContrastiveLoss,
    EmotionConstrainedTripletLoss,
    GhostVLAD,
    SEResNet34,
    SoftmaxClassifier,
    TripletLoss,
    UtteranceEncoder,
)

EMOTIONS = ["neutral", "happy", "sad", "angry"]


def make():
    torch.manual_seed(0)
    encoder = UtteranceEncoder(SEResNet34([4, 4, 8, 8]), GhostVLAD(8, 3, 1), 12)
    return encoder.double(), SoftmaxClassifier(12, 4).double()


def loss_of(kind, encoder, classifier, feats, lengths, labels):
    embeddings = encoder(feats, lengths)
    if kind == "softmax":
        return torch.nn.functional.nll_loss(classifier(embeddings).squeeze(1), labels)
    if kind == "mined":
        miner = BatchHardMiner()
        miner = DistributedMinerWrapper(miner) if torch.distributed.is_initialized() else miner
        return TripletLoss()(embeddings, labels, miner(embeddings.squeeze(1), labels))
    loss = ContrastiveLoss() if kind == "pairs" else EmotionConstrainedTripletLoss(EMOTIONS)
    return loss(embeddings, labels)


def gradients(*modules):
    pairs = [pair for module in modules for pair in module.named_parameters()]
    return {name.removeprefix("module."): p.grad for name, p in pairs if p.grad is not None}


def main(kind, padded):
    feats, labels = torch.rand(16, 64, 257).double(), torch.arange(16) % 4
    lengths = torch.linspace(0.3, 1, 16) if padded else torch.ones(16)
    encoder, classifier = make()
    loss_of(kind, encoder, classifier, feats, lengths, labels).backward()
    expected = gradients(encoder, classifier)
    statistics = dict(encoder.named_buffers())

    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    # A mean of means is the mean of parts of one size alone, and so is what a distributed miner takes; triplets are
    # those of all processes, of any.
    own = slice(8 * rank, 8 * rank + 8) if kind not in {"triplets", "pairs"} else [slice(0, 6), slice(6, 16)][rank]
    encoder, classifier = (DistributedDataParallel(module) for module in make())
    loss_of(kind, encoder, classifier, feats[own], lengths[own], labels[own]).backward()
    found = gradients(encoder, classifier)
    assert set(found) >= set(expected)
    for name, gradient in expected.items():
        # SoftmaxClassifier's logarithm is of float32.
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6, msg=lambda text, n=name: f"{n}: {text}")
    for name, value in encoder.module.named_buffers():
        torch.testing.assert_close(
            value, statistics[name], rtol=1e-4, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}"
        )


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(1)
    main(sys.argv[1], sys.argv[2] == "padded")
