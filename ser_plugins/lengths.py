"""Relative lengths to frames and masks: the one rule that all modules share.

SpeechBrain describes a padded batch by relative lengths in (0, 1]. They do not determine a number of frames. A clip of
``n`` samples alone has ``n // hop + 1`` frames, and ``round(lengths * frames)`` differs from that by one for about half
of all clips. The rule here is exact: *an utterance ends at its last frame that is not blank, and no later than its
relative length allows*. `ser_plugins.Spectrogram` makes the frames after the last non-zero sample blank (all zeros).
Zeros that pad a clip and zeros at the end of a recording are therefore treated alike.
"""

from __future__ import annotations

import torch
from torch import Tensor


def count_frames(feats: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Count the frames of each utterance in a padded batch.

    Parameters
    ----------
    feats : torch.Tensor
        Features, [B, T', F]; padded frames are blank, or excluded by ``lengths``.
    lengths : torch.Tensor, optional
        Relative lengths, [B], of the waveforms or of the features.

    Returns
    -------
    torch.Tensor
        Number of frames, [B], at least 1, int64.

    Raises
    ------
    ValueError
        If ``feats`` is not three-dimensional or ``lengths`` does not fit it.

    Example
    -------
    >>> feats = torch.ones(2, 10, 257)
    >>> feats[1, 6:] = 0
    >>> count_frames(feats, torch.tensor([1.0, 0.65]))
    tensor([10,  6])
    """
    if feats.dim() != 3:
        raise ValueError(f"features must be [batch, frames, bins], got shape {tuple(feats.shape)}")
    total = feats.shape[1]
    index = torch.arange(1, total + 1, device=feats.device)
    frames = (index * (feats != 0).any(-1)).amax(1)
    if lengths is not None:
        if lengths.shape != feats.shape[:1]:
            raise ValueError(f"lengths must be [{feats.shape[0]}], got shape {tuple(lengths.shape)}")
        # A float32 ratio is off by 2^-24 of its size at most; twice that keeps n/T * T from being rounded up to n + 1.
        exact = lengths.double() * total
        frames = frames.minimum(torch.ceil(exact * (1 - 2**-23)).long())
    return frames.clamp(1, total)


def count_samples(wavs: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Count the samples of each utterance in a padded batch [B, T], as `count_frames` counts frames.

    Raises
    ------
    ValueError
        If ``wavs`` is not two-dimensional or ``lengths`` does not fit it.

    Example
    -------
    >>> count_samples(torch.tensor([[0.1, 0.2, 0.1], [0.1, 0.0, 0.0]]))
    tensor([3, 1])
    """
    if wavs.dim() != 2:
        raise ValueError(f"waveforms must be [batch, samples], got shape {tuple(wavs.shape)}")
    return count_frames(wavs.unsqueeze(2), lengths)


def frame_mask(frames: Tensor, total: int) -> Tensor:
    """Mask of the frames that belong to an utterance.

    Parameters
    ----------
    frames : torch.Tensor
        Number of frames of each utterance, [B].
    total : int
        Number of frames of the batch.

    Returns
    -------
    torch.Tensor
        Boolean mask, [B, total].

    Example
    -------
    >>> frame_mask(torch.tensor([3, 1]), 3)
    tensor([[ True,  True,  True],
            [ True, False, False]])
    """
    return torch.arange(total, device=frames.device) < frames.unsqueeze(1)


def length_mask(lengths: Tensor, total: int) -> Tensor:
    """Mask of the descriptors of an utterance, by relative lengths alone: inside of it descriptors may be zero.

    Parameters
    ----------
    lengths : torch.Tensor
        Relative lengths, [B], as `relative_lengths` makes them.
    total : int
        Number of descriptors of the batch.

    Returns
    -------
    torch.Tensor
        Boolean mask, [B, total]; at least one descriptor of each utterance is in it.

    Example
    -------
    >>> length_mask(torch.tensor([1.0, 0.3333]), 3)
    tensor([[ True,  True,  True],
            [ True, False, False]])
    """
    return frame_mask(torch.round(lengths.double() * total).long().clamp(1, total), total)


def relative_lengths(frames: Tensor, total: int) -> Tensor:
    """Relative lengths that `count_frames` turns back into the same number of frames.

    Example
    -------
    >>> relative_lengths(torch.tensor([4, 1]), 4)
    tensor([1.0000, 0.2500])
    """
    return (frames.double() / total).float()
