"""The utterance encoder (backbone, pooling, embedding layer) and the softmax head."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class UtteranceEncoder(nn.Module):
    """Backbone, pooling and embedding layer: spectrogram in, one embedding an utterance out.

    Parameters
    ----------
    backbone : torch.nn.Module
        ``(feats [B, T', F], lengths) -> (descriptors [B, T'', D], lengths)``, as `SEResNet34`.
    pooling : torch.nn.Module
        ``(descriptors [B, T'', D], lengths) -> [B, P]`` with an attribute ``output_size`` P, as `GhostVLAD`.
    embedding_size : int
        Neurons of the embedding layer, E. A batch normalisation follows: without it the doubly normalised VLAD vector
        trains several times more slowly.

    Example
    -------
    >>> from ser_plugins import GhostVLAD, SEResNet34
    >>> encoder = UtteranceEncoder(SEResNet34(), GhostVLAD(128))
    >>> encoder(torch.randn(2, 200, 257), torch.tensor([1.0, 0.5])).shape
    torch.Size([2, 1, 512])
    """

    def __init__(self, backbone: nn.Module, pooling: nn.Module, embedding_size: int = 512) -> None:
        super().__init__()
        self.backbone = backbone
        self.pooling = pooling
        self.embedding = nn.Linear(int(pooling.output_size), embedding_size, bias=False)  # type: ignore[arg-type]
        self.norm = nn.BatchNorm1d(embedding_size)

    def forward(self, feats: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Embed ``feats`` [B, T', F] with relative ``lengths`` [B]; returns [B, 1, E]."""
        descriptors, lengths = self.backbone(feats, lengths)
        embedding: Tensor = self.norm(self.embedding(self.pooling(descriptors, lengths)))
        return embedding.unsqueeze(1)


class SoftmaxClassifier(nn.Module):
    """One neuron a class: embeddings [B, 1, E] in, log-probabilities [B, 1, C] out.

    Example
    -------
    >>> SoftmaxClassifier(512, 8)(torch.randn(2, 1, 512)).exp().sum(-1).round(decimals=4).flatten()
    tensor([1., 1.], grad_fn=<ReshapeAliasBackward0>)
    """

    def __init__(self, input_size: int, n_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(input_size, n_classes)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Classify ``embeddings`` [..., E]; the logarithm is taken in float32."""
        return torch.log_softmax(self.linear(torch.relu(embeddings)).float(), dim=-1)
