"""Several backbones side by side: the descriptors of all of them for each frame, blind to padding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ser_plugins.errors import InputError
from ser_plugins.lengths import count_frames, frame_mask, relative_lengths
from ser_plugins.models.ssl import SSLBackbone

SLACK = 4  # frames that networks of one rate may differ by, at the end of an utterance


class JointBackbone(nn.Module):
    """Waveform in, the descriptors of several backbones concatenated out, one a frame.

    Networks that were trained for different tasks describe different things: a speaker encoder the voice, a speech
    recogniser what is said. Their frames must have the same rate. An utterance has as many descriptors as the branch
    with the fewest frames.

    Parameters
    ----------
    branches : mapping of str to sequence of torch.nn.Module
        The modules of each backbone in their order: features, normalisation and network, as ``[KaldiFbank(),
        MeanNorm(), CAMPPlus()]``; or the network alone where it takes waveforms, as `SSLBackbone` does.

    Attributes
    ----------
    output_size : int
        Size D of a descriptor, the sum over the branches.

    Raises
    ------
    InputError
        If there is no branch, one has neither one nor three modules, or the rates of their frames differ.

    Example
    -------
    >>> from ser_plugins import CAMPPlus, KaldiFbank, MeanNorm
    >>> campplus = [KaldiFbank(), MeanNorm(), CAMPPlus(block=1)]
    >>> backbone = JointBackbone({"first": campplus, "second": [KaldiFbank(), MeanNorm(), CAMPPlus(block=2)]}).eval()
    >>> descriptors, lengths = backbone(torch.randn(2, 16000), torch.tensor([1.0, 0.5]))
    >>> descriptors.shape, lengths
    (torch.Size([2, 49, 1536]), tensor([1.0000, 0.4898]))
    """

    def __init__(self, branches: Mapping[str, Sequence[nn.Module]]) -> None:
        super().__init__()
        if not branches or any(len(branch) not in (1, 3) for branch in branches.values()):
            raise InputError("a branch of JointBackbone is [features, normalisation, network] or [network]; give one")
        self.branches = nn.ModuleDict({name: nn.ModuleList(branch) for name, branch in branches.items()})
        self.output_size: int = sum(network.output_size for network in self.networks())  # type: ignore[misc]

    def networks(self) -> list[nn.Module]:
        """Return the network of each branch."""
        return [branch[-1] for branch in self.branches.values()]  # type: ignore[index]

    def without_source(self) -> list[nn.Module]:
        """Return the networks that do not load their weights themselves, as `SSLBackbone` does."""
        return [network for network in self.networks() if not isinstance(network, SSLBackbone)]

    def forward(self, wavs: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Compute frame descriptors.

        Parameters
        ----------
        wavs : torch.Tensor
            At 16 kHz, [B, T]. An utterance ends at its last sample that is not zero.
        lengths : torch.Tensor, optional
            Relative lengths, [B].

        Returns
        -------
        descriptors : torch.Tensor
            [B, T'', D]; padded descriptors are zero.
        lengths : torch.Tensor
            Relative lengths of the descriptors, [B].
        """
        if wavs.dim() != 2:
            raise ValueError(f"waveforms must be [batch, samples], got shape {tuple(wavs.shape)}")
        found, counts = [], []
        for network, feats in self._inputs(wavs, lengths):
            descriptors, relative = network(feats, lengths)
            found.append(descriptors)
            counts.append((relative.double() * descriptors.shape[1]).round().long())
        frames, most = torch.stack(counts).aminmax(dim=0)
        if int((most - frames).max()) > SLACK:
            found_frames = ", ".join(str(int(one.max())) for one in counts)
            raise InputError(f"the branches have {found_frames} frames; give networks of one rate")
        total = int(frames.max())
        joined = torch.cat([descriptors[:, :total] for descriptors in found], dim=2)
        return joined * frame_mask(frames, total).unsqueeze(2), relative_lengths(frames, total)

    def embed(self, wavs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Concatenate the embeddings [B, E] that the method ``embed`` of each network makes of ``wavs`` [B, T]."""
        found = [network.embed(feats, lengths) for network, feats in self._inputs(wavs, lengths)]
        return torch.cat(found, dim=1)

    def _inputs(self, wavs: Tensor, lengths: Tensor | None) -> Iterator[tuple[Any, Tensor]]:
        """Yield each network and its input; a waveform is blank after the end of its utterance."""
        wavs = wavs * frame_mask(count_frames(wavs.unsqueeze(2), lengths), wavs.shape[1])
        for branch in self.branches.values():
            modules: list[Any] = [*branch.children()]
            feats = wavs
            if len(modules) > 1:
                features, norm, _ = modules
                feats = norm(features(wavs).to(wavs.dtype), lengths)
            yield modules[-1], feats
