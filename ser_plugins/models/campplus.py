"""CAM++, a speaker encoder of densely connected TDNN layers with context-aware masks, blind to padding."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from ser_plugins.errors import InputError
from ser_plugins.lengths import frame_mask, relative_lengths
from ser_plugins.models.batchnorm import MaskedBatchNorm
from ser_plugins.models.se_resnet import halve, to_image

N_BINS = 80
HEAD_CHANNELS = 32
WIDTH = 128  # of the first TDNN layer and of the bottlenecks
GROWTH = 32
BLOCKS = ((12, 1), (24, 2), (16, 2))  # layers and dilation
SEGMENT = 100  # frames of 20 ms
EMBEDDING_SIZE = 192


class Frames:
    """The frames of each utterance of a batch, and their mask; without padding, ``count`` and ``mask`` are None."""

    def __init__(self, count: Tensor | None, total: int) -> None:
        self.count = count
        self.mask = None if count is None else frame_mask(count, total).unsqueeze(1)

    def average(self, x: Tensor) -> Tensor:
        """Average ``x`` [B, C, T], zero where it is padded, over the frames of each utterance: [B, C, 1]."""
        count = x.shape[2] if self.count is None else self.count[:, None, None]
        return x.sum(2, keepdim=True) / count

    def segment_averages(self, x: Tensor) -> Tensor:
        """Average ``x`` [B, C, T], zero where it is padded, over segments of 100 frames: [B, C, ceil(T / 100)].

        The last segment of an utterance is averaged over the frames that it has.
        """
        segments = (x.shape[2] + SEGMENT - 1) // SEGMENT  # ONNX divides negative integers otherwise
        whole = functional.pad(x, (0, segments * SEGMENT - x.shape[2]))
        sums = whole.reshape(*x.shape[:2], segments, SEGMENT).sum(3)
        starts = torch.arange(segments, device=x.device) * SEGMENT
        left = x.shape[2] - starts if self.count is None else self.count[:, None, None] - starts
        return sums / left.clamp(1, SEGMENT)


class ResidualBlock(nn.Module):
    """Two 3 × 3 convolutions and a shortcut; a stride halves the frequency bins alone."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(HEAD_CHANNELS, HEAD_CHANNELS, 3, (stride, 1), padding=1, bias=False)
        self.bn1 = MaskedBatchNorm(HEAD_CHANNELS)
        self.conv2 = nn.Conv2d(HEAD_CHANNELS, HEAD_CHANNELS, 3, padding=1, bias=False)
        self.bn2 = MaskedBatchNorm(HEAD_CHANNELS)
        self.shortcut: nn.ModuleList | None = None
        if stride != 1:
            convolution = nn.Conv2d(HEAD_CHANNELS, HEAD_CHANNELS, 1, (stride, 1), bias=False)
            self.shortcut = nn.ModuleList([convolution, MaskedBatchNorm(HEAD_CHANNELS)])

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Map ``x`` [B, C, F, T]; ``mask`` is [B, 1, 1, T]."""
        out: Tensor = self.bn1(self.conv1(x), mask).relu_()
        out = self.bn2(self.conv2(out), mask)
        if self.shortcut is not None:
            convolution, norm = self.shortcut
            x = norm(convolution(x), mask)
        return out.add_(x).relu_()


class Head(nn.Module):
    """Convolutions over frequency and time that divide the bins by 8: [B, 1, F, T] to [B, 32 · F / 8, T]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, HEAD_CHANNELS, 3, padding=1, bias=False)
        self.bn1 = MaskedBatchNorm(HEAD_CHANNELS)
        self.layer1 = nn.ModuleList([ResidualBlock(2), ResidualBlock(1)])
        self.layer2 = nn.ModuleList([ResidualBlock(2), ResidualBlock(1)])
        self.conv2 = nn.Conv2d(HEAD_CHANNELS, HEAD_CHANNELS, 3, (2, 1), padding=1, bias=False)
        self.bn2 = MaskedBatchNorm(HEAD_CHANNELS)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Map ``x`` [B, 1, F, T]; ``mask`` is [B, 1, T]."""
        mask = None if mask is None else mask.unsqueeze(2)
        x = self.bn1(self.conv1(x), mask).relu_()
        for block in (*self.layer1, *self.layer2):
            x = block(x, mask)
        x = self.bn2(self.conv2(x), mask).relu_()
        return x.flatten(1, 2)


class NormReLU(nn.Module):
    """Batch normalisation, then ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.batchnorm = MaskedBatchNorm(channels)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Map ``x`` [B, C, T]; ``mask`` is [B, 1, T]."""
        x = self.batchnorm(x, mask)
        return x.relu_()


class ContextMask(nn.Module):
    """A dilated convolution whose channels are gated by the averages of the utterance and of the segment."""

    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.linear_local = nn.Conv1d(WIDTH, GROWTH, 3, dilation=dilation, padding=dilation, bias=False)
        self.linear1 = nn.Conv1d(WIDTH, WIDTH // 2, 1)
        self.linear2 = nn.Conv1d(WIDTH // 2, GROWTH, 1)

    def forward(self, x: Tensor, frames: Frames) -> Tensor:
        """Map ``x`` [B, 128, T], zero where it is padded, to [B, 32, T]."""
        context = frames.average(x) + frames.segment_averages(x)
        gates = torch.sigmoid(self.linear2(self.linear1(context).relu())).repeat_interleave(SEGMENT, 2)
        local: Tensor = self.linear_local(x)
        return local * gates[:, :, : x.shape[2]]


class DenseLayer(nn.Module):
    """Bottleneck and gated convolution; its 32 channels are appended to the input."""

    def __init__(self, inputs: int, dilation: int) -> None:
        super().__init__()
        self.nonlinear1 = NormReLU(inputs)
        self.linear1 = nn.Conv1d(inputs, WIDTH, 1, bias=False)
        self.nonlinear2 = NormReLU(WIDTH)
        self.cam_layer = ContextMask(dilation)

    def forward(self, x: Tensor, frames: Frames) -> Tensor:
        """Map ``x`` [B, C, T] to [B, C + 32, T]."""
        out = self.linear1(self.nonlinear1(x, frames.mask))
        return torch.cat([x, self.cam_layer(self.nonlinear2(out, frames.mask), frames)], dim=1)


class DenseBlock(nn.ModuleDict):
    """Densely connected layers: each one takes the output of all layers before it."""

    def __init__(self, inputs: int, layers: int, dilation: int) -> None:
        super().__init__({f"tdnnd{i + 1}": DenseLayer(inputs + i * GROWTH, dilation) for i in range(layers)})

    def forward(self, x: Tensor, frames: Frames) -> Tensor:
        """Map ``x`` [B, C, T] to [B, C + 32 · layers, T]."""
        for layer in self.values():
            x = layer(x, frames)
        return x


class TDNNLayer(nn.Module):
    """A convolution that halves time, normalisation and ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Conv1d(HEAD_CHANNELS * N_BINS // 8, WIDTH, 5, 2, padding=2, bias=False)
        self.nonlinear = NormReLU(WIDTH)

    def forward(self, x: Tensor, frames: Frames) -> Tensor:
        """Map ``x`` [B, 320, T] to [B, 128, ceil(T / 2)]; ``frames`` are those of the output."""
        x = self.nonlinear(self.linear(x), frames.mask)
        return x


class Transit(nn.Module):
    """Normalisation, ReLU and a layer that halves the channels."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.nonlinear = NormReLU(inputs)
        self.linear = nn.Conv1d(inputs, inputs // 2, 1, bias=False)

    def forward(self, x: Tensor, frames: Frames) -> Tensor:
        """Map ``x`` [B, C, T] to [B, C / 2, T]."""
        x = self.linear(self.nonlinear(x, frames.mask))
        return x


class SpeakerLayer(nn.Module):
    """Mean and deviation over the frames, a layer and normalisation: the embedding of a speaker."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.linear = nn.Conv1d(2 * inputs, EMBEDDING_SIZE, 1, bias=False)
        self.nonlinear = nn.ModuleDict({"batchnorm": MaskedBatchNorm(EMBEDDING_SIZE, affine=False)})

    def forward(self, x: Tensor, frames: Frames) -> Tensor:
        """Map ``x`` [B, C, T], zero where it is padded, to [B, 192]."""
        count = x.shape[2] if frames.count is None else frames.count[:, None, None]
        mean = frames.average(x)
        squares = (x - mean).square() if frames.mask is None else ((x - mean) * frames.mask).square()
        deviation = (squares.sum(2, keepdim=True) / (count - 1)).sqrt()
        pooled = self.linear(torch.cat([mean, deviation], dim=1))
        embedding: Tensor = self.nonlinear["batchnorm"](pooled).squeeze(2)
        return embedding


class CAMPPlus(nn.Module):
    """CAM++: Kaldi filterbanks in, frame descriptors after one of its blocks out.

    Wang, Zheng, Chen, Cheng and Chen, "CAM++: A Fast and Efficient Network for Speaker Verification Using
    Context-Aware Masking", Interspeech 2023. A head of 2-D convolutions divides the 80 bins by 8, a TDNN layer divides
    time by 2, and blocks of 12, 24 and 16 densely connected layers follow. The weights that 3D-Speaker publishes
    (``speech_campplus_sv_zh_en_16k-common_advanced``, Apache-2.0) are for ``KaldiFbank()`` and ``MeanNorm()``;
    `load_public` loads them. No value of a padded frame reaches any other frame.

    Parameters
    ----------
    block : {1, 2, 3}, optional
        The block whose frames are the descriptors; later ones are left out. Where not given, all blocks are there, the
        descriptors are the frames that the network itself pools, and `embed` computes the speaker embedding.
    freeze_head : bool
        Keep the head as it is, and fine-tune what follows; its gradients are not computed.

    Attributes
    ----------
    output_size : int
        Size D of a descriptor: 512 after block 1, 1024 after block 2 or 3, or 512.

    Example
    -------
    >>> descriptors, lengths = CAMPPlus(block=2).eval()(torch.randn(2, 200, 80), torch.tensor([1.0, 0.5]))
    >>> descriptors.shape, lengths
    (torch.Size([2, 100, 1024]), tensor([1.0000, 0.5000]))
    """

    def __init__(self, block: int | None = 2, freeze_head: bool = False) -> None:
        super().__init__()
        if block not in (None, 1, 2, 3):
            raise ValueError(f"block must be 1, 2, 3 or None, not {block!r}")
        self.block = block
        self.head = Head().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.freeze_head = freeze_head
        self.head.requires_grad_(not freeze_head)
        # In the order of the signal; the names are those of the public weights.
        self.xvector = nn.ModuleDict({"tdnn": TDNNLayer()})
        channels = WIDTH
        for number, (layers, dilation) in enumerate(BLOCKS[:block], start=1):
            self.xvector[f"block{number}"] = DenseBlock(channels, layers, dilation)
            channels += layers * GROWTH
            if number != block:
                self.xvector[f"transit{number}"] = Transit(channels)
                channels //= 2
        if block is None:
            self.xvector["out_nonlinear"] = NormReLU(channels)
            self.xvector["dense"] = SpeakerLayer(channels)
        self.output_size = channels
        self.train()

    def train(self, mode: bool = True) -> CAMPPlus:
        """Set the mode; a frozen head stays in that of evaluation."""
        super().train(mode)
        self.head.train(mode and not self.freeze_head)
        return self

    def load_public(self, state: Mapping[str, Tensor]) -> None:
        """Load the weights of the whole network, as 3D-Speaker publishes them; blocks after ``block`` are left out.

        Raises
        ------
        InputError
            If ``state`` is not the state dict of a whole CAM++.
        """
        with torch.device("meta"):
            whole = CAMPPlus(block=None).state_dict()
        wrong = sorted(whole.keys() ^ state.keys()) or [n for n in whole if whole[n].shape != state[n].shape]
        if wrong:
            raise InputError(f"these are not the weights of a CAM++: {len(wrong)} arrays differ, as {wrong[0]}")
        self.load_state_dict({name: state[name] for name in self.state_dict()})

    def forward(self, feats: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Compute frame descriptors.

        Parameters
        ----------
        feats : torch.Tensor
            Filterbanks without their mean over time, [B, T', 80].
        lengths : torch.Tensor, optional
            Relative lengths, [B].

        Returns
        -------
        descriptors : torch.Tensor
            [B, T'', D] with T'' = ceil(T' / 2); padded descriptors are zero.
        lengths : torch.Tensor
            Relative lengths of the descriptors, [B].
        """
        x, frames, counts = self._frames(feats, lengths)
        x = x if frames.mask is None else x * frames.mask
        return x.transpose(1, 2), relative_lengths(counts, x.shape[2])

    def embed(self, feats: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Embed the speakers of ``feats`` [B, T', 80] with relative ``lengths`` [B]: [B, 192].

        Needs the whole network, ``CAMPPlus(block=None)``, and of each utterance three frames or more.
        """
        if self.block is not None:
            raise ValueError("only CAMPPlus(block=None) makes embeddings")
        x, frames, _ = self._frames(feats, lengths)
        embedding: Tensor = self.xvector["dense"](x, frames)
        return embedding

    def _frames(self, feats: Tensor, lengths: Tensor | None) -> tuple[Tensor, Frames, Tensor]:
        """Compute the descriptors [B, D, T''], what masks them, and how many each utterance has [B]."""
        image, counts, padded = to_image(feats, lengths, N_BINS)
        x = self.head(image.transpose(2, 3), frame_mask(counts, image.shape[2]).unsqueeze(1) if padded else None)
        counts, total = halve(counts, 2), halve(x.shape[2], 2)
        frames = Frames(counts if padded else None, total)
        for name, layer in self.xvector.items():
            if name == "out_nonlinear":
                x = layer(x, frames.mask)
            elif name != "dense":
                x = layer(x, frames)
        return x, frames, counts
