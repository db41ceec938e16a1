"""A training step, batch 32 of 2 s: against its plain form, ECAPA and SpeechBrain's ResNet on the same clips."""

from collections.abc import Callable, Iterator
from copy import deepcopy

import torch
from speechbrain.lobes.features import Fbank
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN, Classifier
from speechbrain.lobes.models.ResNet import ResNet
from speechbrain.nnet.losses import AdditiveAngularMargin, LogSoftmaxWrapper
from speechbrain.processing.features import InputNormalization
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ser_plugins import EmotionConstrainedTripletLoss, GhostVLAD, SEResNet34, Spectrogram, UtteranceEncoder
from ser_plugins.audio.spectrogram import SpectrogramNorm
from ser_plugins.metric.distance import pairwise_distances
from speed.harness import Row, alternate, ceiling, milliseconds

BATCH, SAMPLES = 32, 32000
LABELS = ["neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised"]
ALPHA, BETA = 0.1, 0.15


class Ours(nn.Module):
    """From waveforms to the loss of S5."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.norm = Spectrogram(), SpectrogramNorm("frame")
        self.encoder = UtteranceEncoder(SEResNet34(), GhostVLAD(128))
        self.loss = EmotionConstrainedTripletLoss(LABELS, alpha=ALPHA, beta=BETA)

    def embed(self, feats: Tensor, lengths: Tensor) -> Tensor:
        return self.encoder(feats, lengths)

    def forward(self, wavs: Tensor, labels: Tensor) -> Tensor:
        lengths = wavs.new_ones(len(wavs))
        return self.loss(self.embed(self.norm(self.features(wavs), lengths), lengths), labels)


class Plain(nn.Module):
    """The same network and loss as a first draft has them: NCHW, and triplets found and summed in loops."""

    def __init__(self, ours: Ours) -> None:
        super().__init__()
        self.ours = deepcopy(ours)
        for weight in self.ours.parameters():
            weight.data = torch.empty(weight.shape).copy_(weight.data)

    def forward(self, wavs: Tensor, labels: Tensor) -> Tensor:
        backbone, encoder = self.ours.encoder.backbone, self.ours.encoder
        lengths = wavs.new_ones(len(wavs))
        x = self.ours.norm(self.ours.features(wavs), lengths).unsqueeze(1).contiguous()
        x = torch.relu(backbone.stem_bn(backbone.stem(x)))
        for block in backbone.stages:
            x = block(x, None, None)
        x = torch.relu(backbone.collapse_bn(backbone.collapse(x)))
        embeddings = encoder.norm(encoder.embedding(encoder.pooling(x.squeeze(3).transpose(1, 2))))
        return looped_loss(pairwise_distances(embeddings), labels.tolist(), self.ours.loss.polarity.tolist())


def semi_hard(row: list[float], near: int, candidates: list[int]) -> int:
    """The closest candidate beyond ``near``, or else the farthest."""
    beyond = [far for far in candidates if row[far] > row[near]]
    return min(beyond, key=row.__getitem__) if beyond else max(candidates, key=row.__getitem__)


def looped_loss(distances: Tensor, labels: list[int], polarity: list[int]) -> Tensor:
    """Equations (5) to (7), triplet by triplet."""
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
            first.append(torch.relu(distances[a, p] + ALPHA - distances[a, r]))
        for r in related:
            n = semi_hard(row, r, negative)
            second.append(torch.relu(distances[a, r] + BETA - distances[a, n]))
    return sum(first) / len(first) + sum(second) / len(second)


class Other(nn.Module):
    """A network of SpeechBrain's as its recipe for IEMOCAP trains it."""

    def __init__(self, network: nn.Module, size: int) -> None:
        super().__init__()
        self.features, self.norm = Fbank(n_mels=80), InputNormalization(norm_type="sentence", std_norm=False)
        self.network, self.classifier = network, Classifier(size, out_neurons=len(LABELS))
        self.loss = LogSoftmaxWrapper(AdditiveAngularMargin(margin=0.2, scale=30))

    def forward(self, wavs: Tensor, labels: Tensor) -> Tensor:
        lengths = wavs.new_ones(len(wavs))
        embeddings = self.network(self.norm(self.features(wavs), lengths))
        embeddings = embeddings if embeddings.dim() == 3 else embeddings.unsqueeze(1)
        return self.loss(self.classifier(embeddings), labels.unsqueeze(1))


def ecapa() -> Other:
    """The ECAPA of SpeechBrain's recipe for IEMOCAP."""
    channels = [512, 512, 512, 512, 1536]
    return Other(ECAPA_TDNN(80, channels=channels, attention_channels=64, lin_neurons=96), 96)


def resnet() -> Other:
    """SpeechBrain's ResNet with our channels and size of an embedding."""
    return Other(ResNet(input_size=80, channels=[16, 32, 64, 128], lin_neurons=512), 512)


def stepper(model: nn.Module, wavs: Tensor, labels: Tensor, bfloat16: bool = False) -> Callable[[], Tensor]:
    """One training step a call, by Adam at rate 0, so that all calls do the same."""
    optimizer = torch.optim.Adam([weight for weight in model.parameters() if weight.requires_grad], 0.0)

    def step() -> Tensor:
        with torch.autocast(wavs.device.type, torch.bfloat16, enabled=bfloat16):
            loss = model(wavs, labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step


def operations(model: nn.Module, wavs: Tensor, labels: Tensor) -> int:
    """Floating-point operations of a step, of convolutions and matrix products."""
    with FlopCounterMode(display=False) as counter:
        model(wavs, labels).backward()
    model.zero_grad()
    return counter.get_total_flops()


def cost(seconds: float, count: float) -> str:
    """Write the time of a step, and the operations of an utterance in it: what bounds a ratio of times."""
    return f"{milliseconds(seconds)}, {count / 1e9:.1f} GFLOP an utterance"


def run() -> Iterator[Row]:
    """Measure."""
    torch.manual_seed(0)
    wavs, labels = torch.randn(BATCH, SAMPLES), torch.arange(BATCH) % len(LABELS)
    ours = Ours()
    plain = Plain(ours)
    torch.testing.assert_close(ours(wavs, labels), plain(wavs, labels), rtol=1e-3, atol=1e-4)
    names = ("plain NCHW, looped loss", "ECAPA-TDNN", "ResNet of SpeechBrain", "bfloat16")
    models = [ours, plain, ecapa(), resnet()]
    steps = [*(stepper(model, wavs, labels) for model in models), stepper(ours, wavs, labels, bfloat16=True)]
    own, *others = alternate(*steps)
    counts = [operations(model, wavs, labels) / BATCH for model in models]
    for name, seconds, count, least in zip(names[:3], others, counts[1:], (1.5, 4, 20), strict=False):
        case = f"training step against {name}"
        yield Row(case, cost(own, counts[0]), cost(seconds, count), seconds / own, least)
    yield Row(
        "training step, bfloat16 against float32", milliseconds(others[3]), milliseconds(own), own / others[3], 1.3
    )
    reached, best = counts[0] * BATCH / own / 1e9, ceiling(torch.float32)
    rates = f"{reached:.0f} GFLOP/s", f"{best:.0f} GFLOP/s"
    yield Row("training step against the float32 ceiling", *rates, reached / best, 0.8)
