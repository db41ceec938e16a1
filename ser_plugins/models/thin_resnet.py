"""The thin ResNet-34 of Xie et al., fully convolutional in time, blind to padding."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ser_plugins.lengths import relative_lengths
from ser_plugins.models.batchnorm import MaskedBatchNorm
from ser_plugins.models.se_resnet import halve, image_mask, to_image


def batch_norm(channels: int) -> MaskedBatchNorm:
    """Make a normalisation with the epsilon that the published weights were trained with."""
    return MaskedBatchNorm(channels, eps=1e-3)


class Bottleneck(nn.Module):
    """Convolutions of 1 × 1, which has the stride, 3 × 3 and 1 × 1, shortcut, then the activation."""

    def __init__(self, inputs: int, inner: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv2d(inputs, inner, 1, stride, bias=False)
        self.bn1 = batch_norm(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, padding=1, bias=False)
        self.bn2 = batch_norm(inner)
        self.conv3 = nn.Conv2d(inner, outputs, 1, bias=False)
        self.bn3 = batch_norm(outputs)
        self.shortcut: nn.Conv2d | None = None
        if inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut_bn = batch_norm(outputs)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Map ``x`` [B, C, T, F]; ``mask`` describes the output."""
        out = functional.relu(self.bn1(self.conv1(x), mask))
        out = functional.relu(self.bn2(self.conv2(out), mask))
        out = self.bn3(self.conv3(out), mask)
        if self.shortcut is not None:
            x = self.shortcut_bn(self.shortcut(x), mask)
        return functional.relu(out + x)


class ThinResNet34(nn.Module):
    """Thin ResNet-34: spectrogram of 257 bins in, frame descriptors over time out.

    The trunk of Xie, Nagrani, Chung and Zisserman, "Utterance-level aggregation for speaker recognition in the wild",
    ICASSP 2019. As in their code, it has a 7 × 7 convolution and 11 bottleneck blocks of three convolutions, without
    squeeze-and-excitation. A descriptor has the 7 bands × 512 channels of a frame after the last pooling; the
    projection to 512 values belongs to `ProjectedGhostVLAD`. No value of a padded frame reaches any other frame.

    Its published weights were trained on magnitudes of frames of 25 ms: ``Spectrogram(win_length=25.0, window="hann",
    log=False)`` and ``SpectrogramNorm("frame")``. Two details differ from the original. The border is padded with
    zeros, because reflection would depend on the padding of the batch; this changes the first two and the last two
    frames. The original appends the time-reversed utterance in its tests, and this network does not.

    Example
    -------
    >>> descriptors, lengths = ThinResNet34()(torch.randn(2, 200, 257), torch.tensor([1.0, 0.5]))
    >>> descriptors.shape, lengths
    (torch.Size([2, 13, 3584]), tensor([1.0000, 0.5385]))
    """

    capturable = True  # looks at no values of a batch without padding
    BINS = 257
    STEM = 64
    # Channels inside a block and behind it, blocks, stride of the first.
    STAGES = ((48, 96, 2, 1), (96, 128, 3, 2), (128, 256, 3, 2), (256, 512, 3, 2))

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, self.STEM, 7, padding=3, bias=False)
        self.stem_bn = batch_norm(self.STEM)
        blocks: list[Bottleneck] = []
        inputs, bins = self.STEM, self.BINS // 2
        for inner, outputs, count, stride in self.STAGES:
            blocks.append(Bottleneck(inputs, inner, outputs, stride))
            blocks.extend(Bottleneck(outputs, inner, outputs, 1) for _ in range(count - 1))
            inputs, bins = outputs, -(-bins // stride)
        self.blocks = nn.ModuleList(blocks)
        self.output_size = (bins - 1) // 2 * inputs
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.orthogonal_(module.weight)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, feats: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Compute frame descriptors.

        Parameters
        ----------
        feats : torch.Tensor
            Spectrograms, [B, T', 257].
        lengths : torch.Tensor, optional
            Relative lengths, [B].

        Returns
        -------
        descriptors : torch.Tensor
            [B, T'', 3584] with T'' = ceil(floor(T' / 2) / 8), and at least 1; the channels of the lowest band come
            first. Padded descriptors are zero.
        lengths : torch.Tensor
            Relative lengths of the descriptors, [B].
        """
        x, frames, padded = to_image(feats, lengths, self.BINS)
        mask = image_mask(frames, x.shape[2]) if padded else None
        x = functional.relu(self.stem_bn(self.stem(x), mask))
        # An utterance of one frame keeps it: no activation is below the zeros around it.
        x = functional.max_pool2d(functional.pad(x, (0, 0, 0, int(x.shape[2] == 1))), 2)
        frames = torch.div(frames, 2, rounding_mode="floor").clamp(min=1)
        # Of an odd number the last frame is dropped; where padded frames follow it, the first block does that: its
        # convolutions see one frame at a time until the mask has been applied.
        for block in self.blocks:
            assert isinstance(block, Bottleneck)
            frames = halve(frames, block.stride)
            x = block(x, image_mask(frames, halve(x.shape[2], block.stride)) if padded else None)
        x = functional.max_pool2d(x, (1, 3), (1, 2))
        return x.permute(0, 2, 3, 1).flatten(2), relative_lengths(frames, x.shape[2])
