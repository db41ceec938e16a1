"""A convolutional network along a vector of hand-made features."""

from __future__ import annotations

from torch import Tensor, nn

from ser_plugins.models.batchnorm import MaskedBatchNorm


class FeatureCNN(nn.Module):
    """One-dimensional convolutions along a vector of features: one embedding an utterance.

    After Issa, Demirci and Yazici, "Speech emotion recognition with deep convolutional neural networks", Biomedical
    Signal Processing and Control 59, 2020. The network has convolutions with ReLU, dropout, batch normalisation and
    max-pooling along the 193 values, and a dense layer. The numbers of filters, the dropout, the order of the layers
    and the embedding layer are choices made here. The training part standardises the features.

    Parameters
    ----------
    n_features : int
        Features of an utterance, F.
    channels : tuple of int
        Filters of each convolution; the second is followed by max-pooling.
    kernel_size : int
        Width of a convolution.
    pool_size : int
        Features that max-pooling makes one.
    dropout : float
        Share of the values dropped after each convolution but the first.
    embedding_size : int
        Neurons of the embedding layer, E.

    Example
    -------
    >>> import torch
    >>> FeatureCNN(193)(torch.randn(2, 1, 193)).shape
    torch.Size([2, 1, 512])
    """

    def __init__(
        self,
        n_features: int = 193,
        channels: tuple[int, ...] = (256, 128, 128, 128),
        kernel_size: int = 5,
        pool_size: int = 8,
        dropout: float = 0.1,
        embedding_size: int = 512,
    ) -> None:
        super().__init__()
        # Statistics of all batches alike: features do not change while the network learns. Mean energies of quiet mel
        # bands vary by less than the usual epsilon.
        self.standardise = MaskedBatchNorm(n_features, eps=1e-12, momentum=None, affine=False)
        layers: list[nn.Module] = []
        inputs = 1
        for number, outputs in enumerate(channels):
            layers += [nn.Conv1d(inputs, outputs, kernel_size, padding="same"), nn.ReLU()]
            if number > 0:
                layers += [MaskedBatchNorm(outputs), nn.Dropout(dropout)]
            if number == 1:
                layers.append(nn.MaxPool1d(pool_size))
            inputs = outputs
        self.convolutions = nn.Sequential(*layers)
        self.embedding = nn.Linear(inputs * (n_features // pool_size), embedding_size, bias=False)
        self.norm = MaskedBatchNorm(embedding_size)
        self.output_size = embedding_size

    def forward(self, feats: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Embed ``feats`` [B, 1, F]; returns [B, 1, E]. An utterance is one vector: ``lengths`` change nothing."""
        x = self.convolutions(self.standardise(feats.squeeze(1)).unsqueeze(1))
        embedding: Tensor = self.norm(self.embedding(x.flatten(1)))
        return embedding.unsqueeze(1)
