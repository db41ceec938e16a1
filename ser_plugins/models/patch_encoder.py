"""Filters on patches of a spectrogram, to be learned by reconstruction; blind to padding."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ser_plugins.lengths import frame_mask, relative_lengths
from ser_plugins.models.se_resnet import halve, to_image


class PatchEncoder(nn.Module):
    """Code of the patch around each frame, averaged over short segments: spectrogram in, descriptors out.

    The local features of Mao, Dong, Huang and Zhan, "Learning Salient Features for Speech Emotion Recognition Using
    Convolutional Neural Networks", IEEE Transactions on Multimedia 16, 2014. A patch has all bins and a few frames.
    Its code is ``sigmoid(W patch + b)``, which is a convolution over time. `ser_plugins.training.AutoEncoder` learns
    W and b from speech without labels.

    Parameters
    ----------
    n_bins : int
        Bins of the spectrogram, F.
    width : int
        Frames of a patch. The frames beyond both ends of an utterance are zero.
    codes : int
        Filters, and so the size of a code, D.
    segment : int
        Patches whose codes are averaged.

    Attributes
    ----------
    output_size : int
        Size of a descriptor, D.
    patch_size : int
        Values of a patch, ``width * n_bins``.

    Example
    -------
    >>> descriptors, lengths = PatchEncoder()(torch.randn(2, 200, 80), torch.tensor([1.0, 0.5]))
    >>> descriptors.shape, lengths
    (torch.Size([2, 25, 256]), tensor([1.0000, 0.5200]))
    """

    capturable = True  # looks at no values of a batch without padding

    def __init__(self, n_bins: int = 80, width: int = 8, codes: int = 256, segment: int = 8) -> None:
        super().__init__()
        self.n_bins, self.width, self.segment = n_bins, width, segment
        self.filters = nn.Conv1d(n_bins, codes, width)
        self.output_size = codes
        self.patch_size = n_bins * width

    def forward(self, feats: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Compute the descriptors.

        Parameters
        ----------
        feats : torch.Tensor
            Spectrograms, [B, T', F].
        lengths : torch.Tensor, optional
            Relative lengths, [B].

        Returns
        -------
        descriptors : torch.Tensor
            [B, T'', D] with T'' = ceil(T' / segment); padded descriptors are zero.
        lengths : torch.Tensor
            Relative lengths of the descriptors, [B].
        """
        padded, frames = self._pad(feats, lengths)
        total = feats.shape[1]
        codes = torch.sigmoid(self.filters(padded.transpose(1, 2))) * frame_mask(frames, total).unsqueeze(1)
        segments = halve(total, self.segment)
        codes = functional.pad(codes, (0, segments * self.segment - total))
        sums = codes.reshape(*codes.shape[:2], segments, self.segment).sum(3)
        # The last segment of an utterance is averaged over the frames that it has.
        left = frames.unsqueeze(1) - torch.arange(segments, device=feats.device) * self.segment
        descriptors = sums / left.clamp(1, self.segment).unsqueeze(1)
        return descriptors.transpose(1, 2), relative_lengths(halve(frames, self.segment), segments)

    def patches(self, feats: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Cut the patches of ``feats`` [B, T', F], one around each frame that is not padding: [N, patch_size]."""
        padded, frames = self._pad(feats, lengths)
        return padded.unfold(1, self.width, 1).flatten(2)[frame_mask(frames, feats.shape[1])]

    def encode(self, patches: Tensor) -> Tensor:
        """Compute the codes [N, D] of ``patches`` [N, patch_size]."""
        return torch.sigmoid(functional.linear(patches, self.filters.weight.flatten(1), self.filters.bias))

    def _pad(self, feats: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """Put zeros in the padded frames and around all of them; return the frames of each utterance too, [B]."""
        image, frames, _ = to_image(feats, lengths, self.n_bins)
        before = (self.width - 1) // 2
        return functional.pad(image.squeeze(1), (0, 0, before, self.width - 1 - before)), frames
