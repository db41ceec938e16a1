"""SE-ResNet-34, fully convolutional in time, blind to padding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from ser_plugins.errors import InputError
from ser_plugins.lengths import count_frames, frame_mask, relative_lengths
from ser_plugins.models.batchnorm import MaskedBatchNorm

Count = TypeVar("Count", int, Tensor)


def halve(frames: Count, stride: int) -> Count:
    """Frames that a "same"-padded convolution of this stride leaves."""
    return (frames + stride - 1) // stride


def to_image(feats: Tensor, lengths: Tensor | None, n_bins: int) -> tuple[Tensor, Tensor, bool]:
    """Make images [B, 1, T', F] of spectrograms; their padded frames are zero.

    Returns
    -------
    image : torch.Tensor
        [B, 1, T', F], channels last.
    frames : torch.Tensor
        Frames of each utterance, [B].
    padded : bool
        Whether an utterance has fewer frames than the batch.
    """
    if feats.dim() != 3 or feats.shape[2] != n_bins:
        raise InputError(f"features must be [batch, frames, {n_bins}], as n_bins says, not {list(feats.shape)}")
    frames = count_frames(feats, lengths)
    if feats.is_cuda and torch.cuda.is_current_stream_capturing():  # which cannot choose by a value
        padded = lengths is not None
    else:  # what is compiled or exported masks always, for the same reason
        padded = torch.compiler.is_compiling() or bool((frames < feats.shape[1]).any())
    if padded:
        feats = torch.where(frame_mask(frames, feats.shape[1]).unsqueeze(2), feats, 0.0)
    return feats.unsqueeze(1).contiguous(memory_format=torch.channels_last), frames, padded


def image_mask(frames: Tensor, total: int) -> Tensor:
    """Mask of the frames [B] that belong to an utterance, for images [B, C, total, F]."""
    return frame_mask(frames, total)[:, None, :, None]


def _pool(x: Tensor) -> Tensor:
    """Halve time and frequency of ``x`` [B, C, T, F] by a maximum over 3 × 3; padded zeros change no positive value."""
    if torch.compiler.is_exporting():  # with a free length, a pooling of stride 2 cannot be exported, a convolution can
        return functional.conv2d(
            functional.max_pool2d(x, 3, 1, padding=1), x.new_ones(x.shape[1], 1, 1, 1), stride=2, groups=x.shape[1]
        )
    return functional.max_pool2d(x, 3, 2, padding=1)


class SqueezeExcitation(nn.Module):
    """Channel gates from the average over the frames that are not padded (Hu et al., CVPR 2018)."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.reduce = nn.Linear(channels, hidden)
        self.expand = nn.Linear(hidden, channels)

    def forward(self, x: Tensor, frames: Tensor | None = None) -> Tensor:
        """Scale the channels of ``x`` [B, C, T, F]; padded frames are zero, ``frames`` [B] says how many are not."""
        count = x.shape[2] if frames is None else frames.unsqueeze(1)
        # A sum, since the gradient of PyTorch's mean is a tensor of the size of x.
        average = x.sum((2, 3)) / (count * x.shape[3])
        gates = torch.sigmoid(self.expand(functional.relu(self.reduce(average))))
        return x * gates[:, :, None, None]


class SEBasicBlock(nn.Module):
    """Two 3 × 3 convolutions, squeeze-and-excitation, shortcut, then the activation."""

    def __init__(self, inputs: int, outputs: int, stride: tuple[int, int], reduction: int | None) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = MaskedBatchNorm(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = MaskedBatchNorm(outputs)
        self.se = None if reduction is None else SqueezeExcitation(outputs, reduction)
        self.shortcut: nn.Conv2d | None = None
        if stride != (1, 1) or inputs != outputs:
            # With few channels the backward pass of such a convolution writes out of bounds (oneDNN 3.10, AVX-512).
            self.skip, left = (stride, (1, 1)) if inputs < 16 else ((1, 1), stride)
            self.shortcut = nn.Conv2d(inputs, outputs, 1, left, bias=False)
            self.shortcut_bn = MaskedBatchNorm(outputs)

    def forward(self, x: Tensor, frames: Tensor | None, mask: Tensor | None) -> Tensor:
        """Map ``x`` [B, C, T, F]; ``frames`` and ``mask`` describe the output."""
        # In place where the backward pass does not need what is overwritten: memory is what bounds these.
        out: Tensor = self.bn1(self.conv1(x), mask).relu_()
        out = self.bn2(self.conv2(out), mask)
        if self.se is not None:
            out = self.se(out, frames)
        if self.shortcut is not None:
            x = self.shortcut_bn(self._shrink(x), mask)
        return out.add_(x).relu_()

    def _shrink(self, x: Tensor) -> Tensor:
        """Apply the shortcut's convolution, of this block's stride."""
        assert self.shortcut is not None
        if torch.compiler.is_exporting():  # a slice of a free length cannot be exported
            return functional.conv2d(x, self.shortcut.weight, stride=self.stride)
        shrunk: Tensor = self.shortcut(x[:, :, :: self.skip[0], :: self.skip[1]])
        return shrunk


class SEResNet34(nn.Module):
    """Squeeze-and-excitation ResNet-34 with few channels: spectrogram in, frame descriptors over time out.

    The backbone of Mocanu, Tapu and Zaharia, Sensors 2021. The paper leaves channels and strides open. Here a 7 × 7
    convolution and a 3 × 3 max-pooling divide time by 4 and frequency by 8. Each of the [3, 4, 6, 3] post-activation
    blocks has squeeze-and-excitation, as in voxceleb_trainer. A convolution over all remaining bins collapses the
    frequency axis, as in Xie et al., ICASSP 2019. Time is divided by 16. A training step takes 1.8 GFLOP for two
    seconds. No value of a padded frame reaches any other frame: not by the border of a convolution, the statistics of
    batch normalisation, or the averages of squeeze-and-excitation.

    Parameters
    ----------
    channels : sequence of int
        Channels of the four stages.
    blocks : sequence of int
        Residual blocks of the four stages.
    n_bins : int
        Frequency bins of the input, F.
    reduction : int, optional
        Ratio of the squeeze-and-excitation bottleneck; None leaves it out, and a plain ResNet-34 remains.
    descriptor_size : int, optional
        Size D of a descriptor; the channels of the last stage if not given.
    pooled : bool
        False leaves out the max-pooling: the first convolution divides both axes by 2, as does the last stage. With
        ``channels=(16, 32, 64, 128)`` this is the network of earlier versions, at three times the cost.

    Example
    -------
    >>> descriptors, lengths = SEResNet34()(torch.randn(2, 200, 257), torch.tensor([1.0, 0.5]))
    >>> descriptors.shape, lengths
    (torch.Size([2, 13, 128]), tensor([1.0000, 0.5385]))
    """

    STRIDES = ((1, 1), (2, 2), (2, 2), (1, 2))  # of the stages, over time and frequency
    capturable = True  # looks at no values of a batch without padding

    def __init__(
        self,
        channels: Sequence[int] = (32, 48, 80, 128),
        blocks: Sequence[int] = (3, 4, 6, 3),
        n_bins: int = 257,
        reduction: int | None = 8,
        descriptor_size: int | None = None,
        pooled: bool = True,
    ) -> None:
        super().__init__()
        if len(channels) != len(self.STRIDES) or len(blocks) != len(self.STRIDES):
            raise ValueError("channels and blocks need four values, one a stage")
        self.n_bins = n_bins
        self.pooled = pooled
        self.stem = nn.Conv2d(1, channels[0], 7, (2, 4) if pooled else 2, padding=3, bias=False)
        self.stem_bn = MaskedBatchNorm(channels[0])
        steps = self.STRIDES if pooled else (*self.STRIDES[:3], (2, 2))
        stages: list[SEBasicBlock] = []
        inputs, bins = channels[0], halve(halve(n_bins, 4), 2) if pooled else halve(n_bins, 2)
        for outputs, count, stride in zip(channels, blocks, steps, strict=True):
            strides = [stride] + [(1, 1)] * (count - 1)
            stages.extend(
                SEBasicBlock(inputs if i == 0 else outputs, outputs, s, reduction) for i, s in enumerate(strides)
            )
            inputs, bins = outputs, halve(bins, stride[1])
        self.stages = nn.ModuleList(stages)
        self.output_size = descriptor_size or channels[-1]
        self.collapse = nn.Conv2d(inputs, self.output_size, (1, bins), bias=False)
        self.collapse_bn = MaskedBatchNorm(self.output_size)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        self.register_load_state_dict_pre_hook(_refuse_earlier)  # type: ignore[no-untyped-call]
        # Convolutions of few channels run more than twice as fast on a CPU in this memory format.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, feats: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Compute frame descriptors.

        Parameters
        ----------
        feats : torch.Tensor
            Spectrograms, [B, T', F].
        lengths : torch.Tensor, optional
            Relative lengths, [B].

        Returns
        -------
        descriptors : torch.Tensor
            [B, T'', D] with T'' = ceil(T' / 16), one more where exported; padded descriptors are zero.
        lengths : torch.Tensor
            Relative lengths of the descriptors, [B].
        """
        x, frames, padded = to_image(feats, lengths, self.n_bins)
        if torch.compiler.is_exporting():
            # Two frames are left everywhere: a free length that may leave one cannot be exported.
            x = functional.pad(x, (0, 0, 0, 16))
        x = self.stem(x)
        frames = halve(frames, 2)
        mask = image_mask(frames, x.shape[2]) if padded else None
        x = self.stem_bn(x, mask).relu_()
        if self.pooled:
            x = _pool(x)
            frames = halve(frames, 2)
            mask = image_mask(frames, x.shape[2]) if padded else None
            x = x if mask is None else x * mask
        for block in self.stages:
            assert isinstance(block, SEBasicBlock)
            if block.stride[0] != 1:
                frames = halve(frames, block.stride[0])
                mask = image_mask(frames, halve(x.shape[2], block.stride[0])) if padded else None
            x = block(x, frames if padded else None, mask)
        x = self.collapse_bn(self.collapse(x), mask).relu_()
        return x.squeeze(3).transpose(1, 2), relative_lengths(frames, x.shape[2])


def _refuse_earlier(module: nn.Module, state_dict: Mapping[str, Any], prefix: str, *_: Any) -> None:
    """Refuse the weights of the network of earlier versions with the remedy."""
    assert isinstance(module, SEResNet34)
    stored = state_dict.get(f"{prefix}collapse.weight")
    if module.pooled and stored is not None and stored.shape != module.collapse.weight.shape:
        raise InputError(
            "these weights are of another SEResNet34; of earlier versions the arguments are "
            "channels: [16, 32, 64, 128], pooled: False"
        )
