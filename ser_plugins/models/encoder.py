"""The utterance encoder (backbone, pooling, embedding layer) and the softmax head."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ser_plugins.audio.speaker import check_mode
from ser_plugins.models.batchnorm import MaskedBatchNorm
from ser_plugins.models.buffers import default_on_load
from ser_plugins.models.calibration import fit_temperature


class UtteranceEncoder(nn.Module):
    """Backbone, pooling and embedding layer: spectrogram in, one embedding an utterance out.

    Parameters
    ----------
    backbone : torch.nn.Module
        ``(feats [B, T', F], lengths) -> (descriptors [B, T'', D], lengths)``, with an attribute ``output_size`` D, as
        `SEResNet34`.
    pooling : torch.nn.Module
        ``(descriptors [B, T'', D], lengths) -> [B, P]``, with an attribute ``output_size`` P, as `GhostVLAD`. Where its
        ``input_size`` is None, the backbone's ``output_size`` is filled in by ``set_input_size``.
    embedding_size : int, optional
        Neurons of the embedding layer, E. A batch normalisation follows: without it the doubly normalised VLAD vector
        trains several times more slowly. None leaves the pooled vector as it is.
    speaker_normalization : {"none", "features", "embeddings", "features+embeddings"}
        With "embeddings" and "features+embeddings" the bias of the last batch normalisation is left out of the
        embeddings, for the mean of the speaker's embeddings is then subtracted outside (`center_by_speaker`, or
        `SpeakerStatistics.embedding`).
    speaker_centred : bool
        Old spelling of ``speaker_normalization="features+embeddings"``, for older model folders.

    Attributes
    ----------
    output_size : int
        Size of an embedding, E.

    Raises
    ------
    ValueError
        If the pooling takes descriptors of another size than the backbone gives.

    Example
    -------
    >>> from ser_plugins import GhostVLAD, SEResNet34
    >>> encoder = UtteranceEncoder(SEResNet34(), GhostVLAD())
    >>> encoder(torch.randn(2, 200, 257), torch.tensor([1.0, 0.5])).shape
    torch.Size([2, 1, 512])
    """

    def __init__(
        self,
        backbone: nn.Module,
        pooling: nn.Module,
        embedding_size: int | None = 512,
        speaker_normalization: Literal["none", "features", "embeddings", "features+embeddings"] = "none",
        speaker_centred: bool = False,
    ) -> None:
        super().__init__()
        _match_sizes(backbone, pooling)
        self.backbone = backbone
        self.pooling = pooling
        pooled = int(pooling.output_size)  # type: ignore[arg-type]
        self.output_size = pooled if embedding_size is None else embedding_size
        self.embedding = None if embedding_size is None else nn.Linear(pooled, embedding_size, bias=False)
        self.norm = None if embedding_size is None else MaskedBatchNorm(embedding_size)
        self.speaker_normalization = check_mode("features+embeddings" if speaker_centred else speaker_normalization)

    @property
    def capturable(self) -> bool:
        """True where backbone and pooling call themselves so: a CUDA graph may stand for them in training."""
        return all(getattr(part, "capturable", False) for part in (self.backbone, self.pooling))

    def forward(self, feats: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Embed ``feats`` [B, T', F] with relative ``lengths`` [B]; returns [B, 1, E]."""
        return self.pool(*self.backbone(feats, lengths))

    def pool(self, descriptors: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Embed the backbone's ``descriptors`` [B, T'', D] with relative ``lengths`` [B]; returns [B, 1, E]."""
        embedding: Tensor = self.pooling(descriptors, lengths)
        if self.embedding is None or self.norm is None:
            return embedding.unsqueeze(1)
        embedding = self.norm(self.embedding(embedding.to(self.norm.weight.dtype)))
        if "embeddings" in self.speaker_normalization:
            embedding = embedding - self.norm.bias
        return embedding.unsqueeze(1)


def _match_sizes(backbone: nn.Module, pooling: nn.Module) -> None:
    """Fill in the pooling's ``input_size`` where it is None, or check it; modules of others need not have the sizes."""
    descriptors = getattr(backbone, "output_size", None)
    if not hasattr(pooling, "input_size"):
        return
    if pooling.input_size is None:
        if descriptors is None:
            name = type(backbone).__name__
            raise ValueError(f"{name} has no output_size; give {type(pooling).__name__} its input_size")
        pooling.set_input_size(descriptors)
    elif descriptors not in (None, pooling.input_size):
        raise ValueError(
            f"{type(backbone).__name__} gives descriptors of {descriptors} values, and {type(pooling).__name__} takes "
            f"{pooling.input_size}; leave its input_size out"
        )


def center_by_speaker(embeddings: Tensor, speakers: Tensor) -> Tensor:
    """Subtract from each embedding the mean embedding of its speaker in the batch.

    Parameters
    ----------
    embeddings : torch.Tensor
        [N, E].
    speakers : torch.Tensor
        Index of the speaker of each, [N].

    Returns
    -------
    torch.Tensor
        [N, E], float32.

    Example
    -------
    >>> center_by_speaker(torch.tensor([[1.0], [3.0], [7.0]]), torch.tensor([0, 0, 5])).flatten()
    tensor([-1.,  1.,  0.])
    """
    with torch.autocast(embeddings.device.type, enabled=False):
        members = functional.one_hot(torch.unique(speakers, return_inverse=True)[1]).float()
        means = members.T @ embeddings.float() / members.sum(0).unsqueeze(1)
        return embeddings.float() - members @ means


class SoftmaxClassifier(nn.Module):
    """One neuron a class, over the positive part: embeddings [B, 1, E] in, log-probabilities [B, 1, C] out.

    Parameters
    ----------
    input_size : int
        Size of an embedding, E.
    n_classes : int
        Classes, C.
    dropout : float
        Share of an embedding's values that training leaves out.

    Example
    -------
    >>> SoftmaxClassifier(512, 8)(torch.randn(2, 1, 512)).exp().sum(-1).detach().round(decimals=4).flatten()
    tensor([1., 1.])
    """

    def __init__(self, input_size: int, n_classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.linear = nn.Linear(input_size, n_classes)
        self.dropout = nn.Dropout(dropout)

    def forward(self, embeddings: Tensor, labels: Tensor | None = None) -> Tensor:
        """Classify ``embeddings`` [..., E]; the logarithm is taken in float32, ``labels`` change nothing."""
        return torch.log_softmax(self.linear(self.dropout(torch.relu(embeddings))).float(), dim=-1)

    @torch.no_grad()
    def calibrate(self, embeddings: Tensor, labels: Tensor) -> float:
        """Divide the weights by a temperature, so that the probabilities fit utterances of other speakers.

        No prediction changes. Call it once, after the training, in evaluation mode.

        Parameters
        ----------
        embeddings : torch.Tensor
            Of validation utterances, [N, 1, E].
        labels : torch.Tensor
            Class indices [N].

        Returns
        -------
        float
            The temperature, see `ser_plugins.models.calibration.fit_temperature`.
        """
        temperature = fit_temperature(self(embeddings), labels)
        self.linear.weight.div_(temperature)
        self.linear.bias.div_(temperature)
        return temperature


class MarginClassifier(nn.Module):
    """Additive angular margin softmax: embeddings [B, 1, E] in, log-probabilities [B, 1, C] out.

    Deng et al., CVPR 2019. The log-probabilities are those of scaled cosines, divided by a temperature. Given the
    labels, as in training, the angle to the right class counts larger by the margin.

    Parameters
    ----------
    input_size : int
        Size of an embedding, E.
    n_classes : int
        Classes, C.
    margin : float
        In radians.
    scale : float
        Factor of the cosines.

    Attributes
    ----------
    temperature : torch.Tensor
        A buffer; 1 before `calibrate`, and for a state dict that has none, as earlier versions wrote it.

    Example
    -------
    >>> classifier, embeddings = MarginClassifier(512, 8), torch.randn(1, 1, 512)
    >>> bool(classifier(embeddings, torch.tensor([3]))[0, 0, 3] < classifier(embeddings)[0, 0, 3])
    True
    """

    temperature: Tensor

    def __init__(self, input_size: int, n_classes: int, margin: float = 0.2, scale: float = 30.0) -> None:
        from speechbrain.nnet.losses import AdditiveAngularMargin  # noqa: PLC0415 — SpeechBrain takes a second to load

        super().__init__()
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(n_classes, input_size)))
        self.scale = scale
        self.margin = AdditiveAngularMargin(margin, scale)
        self.register_buffer("temperature", torch.ones(()))
        default_on_load(self, temperature=1.0)

    def forward(self, embeddings: Tensor, labels: Tensor | None = None) -> Tensor:
        """Classify ``embeddings`` [B, 1, E], in float32 or finer; ``labels`` [B] or [B, 1] ask for the margin."""
        wide = torch.promote_types(self.weight.dtype, torch.float32)
        with torch.autocast(embeddings.device.type, enabled=False):
            directions = functional.normalize(embeddings.to(wide), dim=-1)
            cosines = functional.linear(directions, functional.normalize(self.weight.to(wide)))
            if labels is None:
                logits = self.scale * cosines
            else:
                right = functional.one_hot(labels.flatten(), len(self.weight)).view_as(cosines)
                logits = self.margin(cosines, right)
            return torch.log_softmax(logits / self.temperature.to(wide), dim=-1)

    @torch.no_grad()
    def calibrate(self, embeddings: Tensor, labels: Tensor) -> float:
        """Multiply the temperature by the one that fits other utterances; see `SoftmaxClassifier.calibrate`."""
        temperature = fit_temperature(self(embeddings), labels)
        self.temperature.mul_(temperature)
        return temperature
