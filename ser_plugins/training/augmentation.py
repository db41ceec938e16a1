"""Augmentation of training batches: waveforms, features, mixup."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ser_plugins.training.mixup import Mixup


class Augmentation:
    """SpeechBrain's augmenters of waveforms and of features, and mixup, in this order.

    Parameters
    ----------
    wav_augment, feat_augment : speechbrain.augment.augmenter.Augmenter, optional
        Augmenters; either may add copies of the utterances.
    mixup : float, optional
        Alpha of `Mixup`; None turns it off.
    """

    def __init__(self, wav_augment: Any = None, feat_augment: Any = None, mixup: float | None = None) -> None:
        self.wav_augment = wav_augment
        self.feat_augment = feat_augment
        self.mixup = Mixup(mixup)

    def features(self, modules: Any, batch: Any, augment: bool) -> tuple[Tensor, Tensor]:
        """Compute normalised features [B, T', F] of a batch and their relative lengths [B].

        Parameters
        ----------
        modules : mapping
            ``compute_features`` and ``mean_var_norm``.
        batch : PaddedBatch
            ``signal``, and ``speaker_features`` where features are speaker-normalised.
        augment : bool
            True in training. Mixup is apart: it belongs to a loss.
        """
        wavs, lengths = batch.signal
        statistics = (batch.speaker_features.data,) if hasattr(batch, "speaker_features") else ()
        if augment and self.wav_augment is not None:
            wavs, lengths = self.wav_augment(wavs, lengths)
            statistics = tuple(map(self.wav_augment.replicate_labels, statistics))
        feats = modules.mean_var_norm(modules.compute_features(wavs), lengths, *statistics)
        if augment and self.feat_augment is not None:
            feats, lengths = self.feat_augment(feats, lengths)
        return feats, lengths

    def repeat(self, values: Tensor) -> Tensor:
        """Repeat ``values`` [B] of the utterances for the copies that the augmenters add."""
        for augment in (self.wav_augment, self.feat_augment):
            values = values if augment is None else augment.replicate_labels(values)
        return values
