"""A teacher: a frozen network, and what it computes of a corpus in shards, once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from ser_plugins import configuration
from ser_plugins.audio.reading import SAMPLE_RATE
from ser_plugins.corpora.shards import Shard, ShardFolder
from ser_plugins.errors import InputError
from ser_plugins.files import atomic_path, atomic_write
from ser_plugins.model_folder.lineage import Lineage, read_lineage
from ser_plugins.models.joint import JointBackbone
from ser_plugins.training.stream import UtteranceStream
from ser_plugins.training.transfer import find_weights, read_weights

BLOCK = 1280  # samples, 80 ms: frame descriptors are kept as their average over so many
HOP = SAMPLE_RATE // 100
OWN = "own"
REMEDY = f"give --teacher the folder of recipes/convert.py campplus, or {OWN} for networks that load their weights"
LARGEST = float(np.finfo(np.float16).max)


class Teacher(nn.Module):
    """A frozen network that describes the frames of an utterance, and embeds it.

    Parameters
    ----------
    features : torch.nn.Module
        Waveforms [B, T] to features [B, T', F]; ``torch.nn.Identity`` for a network on waveforms.
    norm : torch.nn.Module
        ``(features, lengths) -> features``.
    backbone : torch.nn.Module
        ``(features, lengths) -> (descriptors [B, T'', D], lengths)``.
    speaker : torch.nn.Module, optional
        A network whose method ``embed`` makes the utterance embedding [B, E] of the features. Where not given, it is
        the mean of the descriptors.

    Raises
    ------
    ValueError
        If ``speaker`` has no method ``embed``.

    Example
    -------
    >>> from ser_plugins import CAMPPlus, KaldiFbank, MeanNorm
    >>> teacher = Teacher(KaldiFbank(), MeanNorm(), CAMPPlus(block=1))
    >>> blocks, embeddings = teacher(torch.randn(2, 8000), torch.tensor([1.0, 0.5]))
    >>> [one.shape for one in blocks], embeddings.shape
    ([torch.Size([7, 512]), torch.Size([4, 512])], torch.Size([2, 512]))
    """

    def __init__(
        self, features: nn.Module, norm: nn.Module, backbone: nn.Module, speaker: nn.Module | None = None
    ) -> None:
        super().__init__()
        if speaker is not None and not hasattr(speaker, "embed"):
            raise ValueError(f"the teacher's {type(speaker).__name__} has no method embed; leave it out")
        self.features, self.norm, self.backbone, self.speaker = features, norm, backbone, speaker
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def forward(self, wavs: Tensor, lengths: Tensor) -> tuple[list[Tensor], Tensor]:
        """Describe waveforms.

        Parameters
        ----------
        wavs : torch.Tensor
            [B, T].
        lengths : torch.Tensor
            Relative lengths, [B].

        Returns
        -------
        blocks : list of torch.Tensor
            Of each utterance, the average of its descriptors over each 80 ms, [blocks, D].
        embeddings : torch.Tensor
            [B, E].
        """
        feats = self.norm(self.features(wavs), lengths)
        descriptors, relative = self.backbone(feats, lengths)
        samples = torch.round(lengths.double() * wavs.shape[1]).long().tolist()
        counts = torch.round(relative.double() * descriptors.shape[1]).long().tolist()
        own = [one[:count].float() for one, count in zip(descriptors, counts, strict=True)]
        blocks = [
            averaging(-(-size // BLOCK), len(one), BLOCK / self.period, 0.0).to(one) @ one
            for one, size in zip(own, samples, strict=True)
        ]
        if self.speaker is None:
            return blocks, torch.stack([one.mean(0) for one in own])
        embeddings: Tensor = self.speaker.embed(feats, lengths)  # type: ignore[operator]
        return blocks, embeddings.float()

    @cached_property
    def period(self) -> int:
        """Samples from one descriptor to the next."""
        ones = torch.ones(1, device=self.device)
        return frame_period(lambda wavs: self.backbone(self.norm(self.features(wavs), ones), ones)[0], self.device)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.backbone.parameters()).device

    def load(self, source: str | None) -> Lineage:
        """Load the weights of ``backbone`` and ``speaker`` from a folder, all of them.

        Of a `JointBackbone`, the networks that do not load their weights themselves take them.

        Parameters
        ----------
        source : str
            Folder of an encoder whose weights are named ``backbone.…``; ``own`` where the networks have their weights.

        Returns
        -------
        tuple of Training
            The trainings that led to them.

        Raises
        ------
        InputError
            If there is none, or it lacks a weight.
        """
        if source is None:
            raise InputError(f"a student needs a teacher; {REMEDY}")
        if source == OWN:
            return ()
        path = find_weights(source)
        given = {name.removeprefix("backbone."): weight for name, weight in read_weights(path).items()}
        for network in (*_without_weights(self.backbone), *_without_weights(self.speaker)):
            own = network.state_dict()
            wrong = [name for name, weight in own.items() if name not in given or given[name].shape != weight.shape]
            if wrong:
                kind = type(network).__name__
                raise InputError(
                    f"{path} lacks {len(wrong)} of the {len(own)} arrays of {kind}, as {wrong[0]}; {REMEDY}"
                )
            network.load_state_dict({name: given[name] for name in own})
        return read_lineage(path)

    def sha256(self) -> str:
        """SHA-256 over the names and values of all weights."""
        digest = hashlib.sha256()
        for name, weight in sorted(self.state_dict().items()):
            digest.update(name.encode())
            digest.update(weight.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


def _without_weights(network: nn.Module | None) -> list[nn.Module]:
    if isinstance(network, JointBackbone):
        return network.without_source()
    return [] if network is None else [network]


def frame_period(describe: Callable[[Tensor], Tensor], device: torch.device) -> int:
    """Measure the samples from one descriptor to the next, a multiple of 10 ms.

    Parameters
    ----------
    describe : callable
        Waveforms [B, T] to descriptors [B, T'', D].
    device : torch.device
        Device of the waveform that it is given, of 41 s: borders hardly matter to its number of descriptors.
    """
    samples = 4096 * HOP
    with torch.no_grad():
        descriptors = describe(torch.linspace(-1, 1, samples, device=device)[None])
    return max(1, round(samples / descriptors.shape[1] / HOP)) * HOP


def averaging(outputs: int, inputs: int, width: float, first: float) -> Tensor:
    """Weights that average frames over intervals of one width, by the part of each frame that is in the interval.

    Parameters
    ----------
    outputs, inputs : int
        Number of intervals, one after another, and of frames.
    width : float
        Length of an interval, in frames.
    first : float
        Start of the first interval; frame k is from k to k + 1. An interval after the last frame takes that frame.

    Returns
    -------
    torch.Tensor
        [outputs, inputs], float64; each row adds up to 1.

    Example
    -------
    >>> averaging(3, 4, width=2, first=-1)
    tensor([[1.0000, 0.0000, 0.0000, 0.0000],
            [0.0000, 0.5000, 0.5000, 0.0000],
            [0.0000, 0.0000, 0.0000, 1.0000]], dtype=torch.float64)
    """
    start = (first + width * torch.arange(outputs, dtype=torch.float64)).clamp(max=inputs - 1).unsqueeze(1)
    place = torch.arange(inputs, dtype=torch.float64)
    overlap = (torch.minimum(start + width, place + 1) - torch.maximum(start, place)).clamp(min=0)
    return overlap / overlap.sum(1, keepdim=True)


@dataclass(frozen=True)
class Scale:
    """Statistics of a teacher's outputs over training utterances.

    Attributes
    ----------
    mean, deviation : torch.Tensor
        Of each value of a frame, [D].
    center : torch.Tensor
        Mean of the embeddings of unit length, [E].
    """

    mean: Tensor
    deviation: Tensor
    center: Tensor


@dataclass(frozen=True)
class TeacherFolder:
    """What a teacher computed of the utterances of a `ShardFolder`: one file a shard.

    Attributes
    ----------
    folder : pathlib.Path
        Where the files are.
    """

    folder: Path

    def path(self, shard: Shard) -> Path:
        """File that belongs to a shard."""
        return self.folder / f"{shard.path.stem}.npz"

    def read(self, shard: Shard) -> dict[str, tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
        """Read a shard's blocks [blocks, D] and embedding [E] by the id of the utterance."""
        with np.load(self.path(shard)) as file:
            blocks = np.split(file["blocks"], np.cumsum(file["counts"])[:-1])
            return dict(zip(file["id"].tolist(), zip(blocks, file["embeddings"], strict=True), strict=True))

    def write(self, shard: Shard, teacher: Teacher) -> None:
        """Compute a shard's file; it is there completely or not at all."""
        found: list[tuple[str, Tensor, Tensor]] = []
        for batch in UtteranceStream([shard], batch_size=8):
            signals = [example["signal"] for example in batch]
            sizes = torch.tensor([len(one) for one in signals])
            wavs = nn.utils.rnn.pad_sequence(signals, batch_first=True).to(teacher.device)
            blocks, embeddings = teacher(wavs, (sizes / sizes.max()).to(teacher.device))
            found += zip([one["id"] for one in batch], [one.cpu() for one in blocks], embeddings.cpu(), strict=True)
        ids, frames, vectors = zip(*found, strict=True)
        joined, embeddings = torch.cat(frames), torch.stack(vectors)
        with atomic_path(self.path(shard)) as part:
            np.savez(
                part,
                id=np.array(ids),
                counts=np.array([len(one) for one in frames]),
                blocks=joined.clamp(-LARGEST, LARGEST).half().numpy(),
                embeddings=embeddings.numpy(),
                sums=joined.double().sum(0).numpy(),
                squares=joined.double().square().sum(0).numpy(),
            )

    def scale(self, shards: Sequence[Shard]) -> Scale:
        """Compute the statistics over some shards."""
        sums: Any = 0.0
        squares: Any = 0.0
        center: Any = 0.0
        frames = utterances = 0
        for shard in shards:
            with np.load(self.path(shard)) as file:
                sums, squares = sums + file["sums"], squares + file["squares"]
                unit = functional.normalize(torch.from_numpy(file["embeddings"]).double(), dim=1).sum(0).numpy()
                center, frames, utterances = center + unit, frames + file["counts"].sum(), utterances + len(file["id"])
        mean = torch.as_tensor(sums / frames)
        deviation = (torch.as_tensor(squares / frames) - mean.square()).clamp(min=0).sqrt()
        deviation[deviation < 1e-6] = 1.0  # a value that never changes
        return Scale(mean.float(), deviation.float(), torch.as_tensor(center / utterances).float())


def compute_targets(
    shards: ShardFolder, teacher: Teacher, tree: Mapping[str, Any], device: torch.device | str | None = None
) -> TeacherFolder:
    """Compute what a teacher says of each utterance of a corpus; what is there already is kept.

    The files are in a folder next to the shards, named by a hash of the teacher's weights and description and of what
    the shards were made from.

    Parameters
    ----------
    shards : ShardFolder
        Prepared speech.
    teacher : Teacher
        With its weights.
    tree : mapping
        The run's YAML: ``teacher_network`` describes the teacher.
    device : torch.device or str, optional
        Device that computes; the CPU if not given.
    """
    settings = {
        "teacher": configuration.plain(configuration.resolve(tree)["teacher_network"]),
        "weights": teacher.sha256(),
        "block": BLOCK,
        "speech": shards.index["settings"],
    }
    text = json.dumps(settings, sort_keys=True)
    targets = TeacherFolder(shards.folder / f"teacher-{hashlib.sha256(text.encode()).hexdigest()[:12]}")
    every = [shard for part in shards.index["parts"] for shard in shards.part(part) if shard.samples]
    missing = [shard for shard in every if not targets.path(shard).is_file()]
    if missing:
        atomic_write(targets.folder / "teacher.json", text)
        teacher.to(device or "cpu")
    for shard in tqdm(missing, desc="teacher", unit="shard", disable=not missing):
        targets.write(shard, teacher)
    return targets
