"""A training step, batch 32 of 2 s, against a plain form, our earlier network, ECAPA-TDNN and ResNet of SpeechBrain.

Each time comes with the GFLOP of an utterance, of convolutions and matrix products. CAM++ is compared in the forward
pass alone.
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial

import torch
from speechbrain.lobes.features import Fbank
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN, Classifier
from speechbrain.lobes.models.ResNet import ResNet
from speechbrain.nnet.losses import AdditiveAngularMargin, LogSoftmaxWrapper
from speechbrain.processing.features import InputNormalization
from torch import Tensor, nn
from torch.nn import functional

from ser_plugins import CAMPPlus, KaldiFbank, MeanNorm, SEResNet34
from ser_plugins.configuration import compose
from ser_plugins.metric.distance import pairwise_distances
from ser_plugins.training.run import build
from speed.harness import Row, alternate, ceiling, milliseconds, operations

BATCH, SAMPLES, CLASSES = 32, 32000, 8


class Ours(nn.Module):
    """S5 from waveforms to the loss, as its preset builds it."""

    def __init__(self, graphs: bool = False) -> None:
        super().__init__()
        hparams = build(compose("s5"))
        self.features, self.norm = hparams["compute_features"], hparams["mean_var_norm"]
        self.encoder, self.loss = hparams["embedding_model"], hparams["metric_loss"]
        self.graphs = hparams["cuda_graphs"] if graphs else None

    def embed(self, wavs: Tensor) -> Tensor:
        lengths = wavs.new_ones(len(wavs))
        feats = self.norm(self.features(wavs), lengths)
        return self.graphs(self.encoder, feats, lengths) if self.graphs else self.encoder(feats, lengths)

    def forward(self, wavs: Tensor, labels: Tensor) -> Tensor:
        return self.loss(self.embed(wavs), labels)


class Plain(nn.Module):
    """The same network and loss in a plain form: NCHW, and loops that find and sum the triplets."""

    def __init__(self, ours: Ours) -> None:
        super().__init__()
        self.ours = deepcopy(ours)
        for weight in self.ours.parameters():
            weight.data = torch.empty(weight.shape).copy_(weight.data)

    def forward(self, wavs: Tensor, labels: Tensor) -> Tensor:
        encoder, loss = self.ours.encoder, self.ours.loss
        backbone = encoder.backbone
        x = self.ours.norm(self.ours.features(wavs), wavs.new_ones(len(wavs))).unsqueeze(1).contiguous()
        x = functional.max_pool2d(torch.relu(backbone.stem_bn(backbone.stem(x))), 3, 2, padding=1)
        for block in backbone.stages:
            x = block(x, None, None)
        x = torch.relu(backbone.collapse_bn(backbone.collapse(x)))
        embeddings = encoder.norm(encoder.embedding(encoder.pooling(x.squeeze(3).transpose(1, 2))))
        margins = loss.alpha, loss.beta
        return looped_loss(pairwise_distances(embeddings), labels.tolist(), loss.polarity.tolist(), *margins)


def semi_hard(row: list[float], near: int, candidates: list[int]) -> int:
    """Find the closest candidate beyond ``near``, or else the farthest."""
    beyond = [far for far in candidates if row[far] > row[near]]
    return min(beyond, key=row.__getitem__) if beyond else max(candidates, key=row.__getitem__)


def looped_loss(distances: Tensor, labels: list[int], polarity: list[int], alpha: float, beta: float) -> Tensor:
    """Compute equations (5) to (7) triplet by triplet."""
    known = distances.tolist()
    first, second = [], []
    for a, row in enumerate(known):
        others = [i for i in range(len(row)) if i != a]
        same = [i for i in others if labels[i] == labels[a]]
        related = [i for i in others if labels[i] != labels[a] and polarity[labels[i]] == polarity[labels[a]]]
        negative = [i for i in others if polarity[labels[i]] != polarity[labels[a]]]
        alone = polarity.count(polarity[labels[a]]) == 1
        for p in same:
            r = semi_hard(row, p, negative if alone else related)
            first.append(torch.relu(distances[a, p] + alpha - distances[a, r]))
        for r in related:
            n = semi_hard(row, r, negative)
            second.append(torch.relu(distances[a, r] + beta - distances[a, n]))
    return sum(first) / len(first) + sum(second) / len(second)


class Other(nn.Module):
    """A network of SpeechBrain's, trained as in its recipe for IEMOCAP."""

    def __init__(self, network: nn.Module, size: int) -> None:
        super().__init__()
        self.features, self.norm = Fbank(n_mels=80), InputNormalization(norm_type="sentence", std_norm=False)
        self.network, self.classifier = network, Classifier(size, out_neurons=CLASSES)
        self.loss = LogSoftmaxWrapper(AdditiveAngularMargin(margin=0.2, scale=30))

    def forward(self, wavs: Tensor, labels: Tensor) -> Tensor:
        lengths = wavs.new_ones(len(wavs))
        embeddings = self.network(self.norm(self.features(wavs), lengths))
        embeddings = embeddings if embeddings.dim() == 3 else embeddings.unsqueeze(1)
        return self.loss(self.classifier(embeddings), labels.unsqueeze(1))


def earlier() -> Ours:
    """Make S5 with the network of earlier versions, which has no max-pooling."""
    model = Ours()
    size = model.encoder.backbone.output_size
    model.encoder.backbone = SEResNet34((16, 32, 64, 128), descriptor_size=size, pooled=False)
    return model


def ecapa() -> Other:
    """Make the ECAPA-TDNN of SpeechBrain's recipe for IEMOCAP."""
    channels = [512, 512, 512, 512, 1536]
    return Other(ECAPA_TDNN(80, channels=channels, attention_channels=64, lin_neurons=96), 96)


def resnet() -> Other:
    """Make SpeechBrain's ResNet with our channels and embedding size."""
    return Other(ResNet(input_size=80, channels=[16, 32, 64, 128], lin_neurons=512), 512)


def stepper(model: nn.Module, wavs: Tensor, labels: Tensor, bfloat16: bool = False) -> Callable[[], Tensor]:
    """Make a function that takes one training step, by Adam at learning rate 0, so that all calls do the same."""
    optimizer = torch.optim.Adam([weight for weight in model.parameters() if weight.requires_grad], 0.0)

    def step() -> Tensor:
        with torch.autocast(wavs.device.type, torch.bfloat16, enabled=bfloat16):
            loss = model(wavs, labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step


def cost(seconds: float, call: Callable[[], Tensor]) -> str:
    """Write the time of a call and the GFLOP of an utterance in it."""
    return f"{milliseconds(seconds)}, {operations(call) / BATCH:.1f} GFLOP an utterance"


def run() -> Iterator[Row]:
    """Measure; ours and its plain form are compared first."""
    torch.manual_seed(0)
    ours = Ours()
    wavs, labels = torch.randn(BATCH, SAMPLES), torch.arange(BATCH) % CLASSES
    plain = Plain(ours)
    torch.testing.assert_close(ours(wavs, labels), plain(wavs, labels), rtol=1e-3, atol=1e-4)
    models = {
        "plain NCHW, looped loss": plain,
        "the network of earlier versions": earlier(),
        "ECAPA-TDNN": ecapa(),
        "ResNet of SpeechBrain": resnet(),
    }
    step, half = stepper(ours, wavs, labels), stepper(ours, wavs, labels, bfloat16=True)
    steps = {name: stepper(model, wavs, labels) for name, model in models.items()}
    own, fast, *others = alternate(step, half, *steps.values())
    ours_cost = cost(own, step)
    for (name, other), seconds, least in zip(steps.items(), others, (1.5, None, 4, 20), strict=True):
        yield Row(f"training step against {name}", ours_cost, cost(seconds, other), seconds / own, least)
    yield forward_row(ours, wavs)
    yield Row("training step, bfloat16 against float32", milliseconds(fast), milliseconds(own), own / fast, 1.3)
    reached, best = operations(step) / own, ceiling(torch.float32)
    rates = f"{reached:.0f} GFLOP/s", f"{best:.0f} GFLOP/s"
    yield Row("training step against the float32 ceiling", *rates, reached / best, 0.8)


@torch.no_grad()
def forward_row(ours: Ours, wavs: Tensor) -> Row:
    """Compare the forward pass with that of CAM++, from waveforms, in evaluation mode."""
    other = nn.Sequential(KaldiFbank(), MeanNorm(), CAMPPlus())
    passes = partial(ours.eval().embed, wavs), partial(other.eval(), wavs)
    own, seconds = alternate(*passes)
    cells = (cost(time, call) for time, call in zip((own, seconds), passes, strict=True))
    ours.train()
    return Row("forward pass against CAM++", *cells, seconds / own)
