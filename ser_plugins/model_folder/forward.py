"""The forward pass of a model: from waveforms through its modules to embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ser_plugins.audio.speaker import SpeakerStatistics


def embed(
    modules: Mapping[str, Any], wavs: Tensor, lengths: Tensor | None = None, speaker: SpeakerStatistics | None = None
) -> Tensor:
    """Embed a padded batch of waveforms; the modules stay as they are.

    Parameters
    ----------
    modules : mapping
        ``compute_features``, ``mean_var_norm`` and ``embedding_model``, as ``model.mods`` of an ``EncoderClassifier``.
    wavs : torch.Tensor
        Waveforms [B, T].
    lengths : torch.Tensor, optional
        Relative lengths [B].
    speaker : SpeakerStatistics, optional
        Statistics of the speaker of all waveforms, for a model that was trained with speaker normalisation.

    Returns
    -------
    torch.Tensor
        Embeddings [B, 1, E].
    """
    if lengths is None:
        lengths = torch.ones(len(wavs), device=wavs.device)
    return embed_features(modules, modules["compute_features"](wavs), lengths, speaker)


def embed_features(
    modules: Mapping[str, Any], feats: Tensor, lengths: Tensor | None = None, speaker: SpeakerStatistics | None = None
) -> Tensor:
    """Embed features [B, T', F] as `embed` does waveforms."""
    features, mean = (speaker.features, speaker.embedding) if speaker else (None, None)
    norm = modules["mean_var_norm"]
    normalized = norm(feats, lengths) if features is None else norm(feats, lengths, speaker=features.to(feats.device))
    embeddings: Tensor = modules["embedding_model"](normalized, lengths)
    return embeddings if mean is None else embeddings - mean.to(embeddings.device)
