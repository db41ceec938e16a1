"""Several backbones side by side: the descriptors of all of them for each frame, blind to padding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ser_plugins.errors import InputError
from ser_plugins.lengths import count_samples, frame_mask, relative_lengths
from ser_plugins.models.ssl import SSLBackbone

NORMAL = 100  # the speed of the recording, in percent
SLACK = 4  # frames that networks of one rate may differ by, at the end of an utterance


class JointBackbone(nn.Module):
    """Waveform in, the descriptors of several backbones concatenated out, one a frame.

    Networks that were trained for different tasks describe different things: a speaker encoder the voice, a speech
    recogniser what is said. Their frames must have the same rate. An utterance has as many descriptors as the branch
    with the fewest frames. With several ``speeds`` it is described at each of them, and the descriptors follow one
    another in time: statistics over them depend less on the speaking rate and the pitch.

    Parameters
    ----------
    branches : mapping of str to sequence of torch.nn.Module
        The modules of each backbone in their order: features, normalisation and network, as ``[KaldiFbank(),
        MeanNorm(), CAMPPlus()]``; or the network alone where it takes waveforms, as `SSLBackbone` does.
    speeds : sequence of int
        In percent, as SpeechBrain's ``SpeedPerturb`` takes them: 110 is faster and higher by a tenth.

    Attributes
    ----------
    output_size : int
        Size D of a descriptor, the sum over the branches.

    Raises
    ------
    InputError
        If there is no branch, one has neither one nor three modules, the rates of their frames differ, or there is no
        speed above 0.

    Example
    -------
    >>> from ser_plugins import CAMPPlus, KaldiFbank, MeanNorm
    >>> campplus = [KaldiFbank(), MeanNorm(), CAMPPlus(block=1)]
    >>> backbone = JointBackbone({"first": campplus, "second": [KaldiFbank(), MeanNorm(), CAMPPlus(block=2)]}).eval()
    >>> descriptors, lengths = backbone(torch.randn(2, 16000), torch.tensor([1.0, 0.5]))
    >>> descriptors.shape, lengths
    (torch.Size([2, 49, 1536]), tensor([1.0000, 0.4898]))
    """

    def __init__(self, branches: Mapping[str, Sequence[nn.Module]], speeds: Sequence[int] = (100,)) -> None:
        super().__init__()
        if not branches or any(len(branch) not in (1, 3) for branch in branches.values()):
            raise InputError("a branch of JointBackbone is [features, normalisation, network] or [network]; give one")
        if not speeds or min(speeds) <= 0:
            raise InputError(f"speeds must be percentages above 0, got {list(speeds)}")
        self.speeds = tuple(speeds)
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
        found = [self._describe(*self._at_speed(wavs, lengths, speed)) for speed in self.speeds]
        frames = sum(counts for _, counts in found)
        assert isinstance(frames, Tensor)
        rows = [torch.cat([one[row, : counts[row]] for one, counts in found]) for row in range(len(wavs))]
        return pad_sequence(rows, batch_first=True), relative_lengths(frames, int(frames.max()))

    def _describe(self, wavs: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the descriptors [B, T'', D] of all branches, and how many each utterance has [B]."""
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
        return torch.cat([descriptors[:, :total] for descriptors in found], dim=2), frames

    @staticmethod
    def _at_speed(wavs: Tensor, lengths: Tensor | None, speed: int) -> tuple[Tensor, Tensor]:
        """Return waveforms [B, T] at a speed, blank after the end of each utterance, and their relative lengths."""
        samples = count_samples(wavs, lengths)
        wavs = wavs * frame_mask(samples, wavs.shape[1])
        if speed != NORMAL:
            from torchaudio.functional import resample  # noqa: PLC0415 — takes a while

            with torch.autocast(wavs.device.type, enabled=False):
                wavs = resample(wavs, speed, NORMAL)
            samples = torch.div(samples * NORMAL + speed - 1, speed, rounding_mode="floor")
            wavs = wavs * frame_mask(samples, wavs.shape[1])
        return wavs, relative_lengths(samples, wavs.shape[1])

    def embed(self, wavs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Concatenate the embeddings [B, E] that the method ``embed`` of each network makes of ``wavs`` [B, T]."""
        wavs, lengths = self._at_speed(wavs, lengths, NORMAL)
        found = [network.embed(feats, lengths) for network, feats in self._inputs(wavs, lengths)]
        return torch.cat(found, dim=1)

    def _inputs(self, wavs: Tensor, lengths: Tensor) -> Iterator[tuple[Any, Tensor]]:
        """Yield each network and its input."""
        for branch in self.branches.values():
            modules: list[Any] = [*branch.children()]
            feats = wavs
            if len(modules) > 1:
                features, norm, _ = modules
                feats = norm(features(wavs).to(wavs.dtype), lengths)
            yield modules[-1], feats
