"""A model folder as one ONNX file, which onnxruntime runs without PyTorch, and the same in 8-bit integers."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from ser_plugins.audio.spectrogram import Spectrogram
from ser_plugins.errors import InputError
from ser_plugins.files import atomic_path, atomic_write
from ser_plugins.inference.voice import Recordings, adapt_or_warn, told_voice
from ser_plugins.model_folder.loading import UtteranceClassifier, load

if TYPE_CHECKING:
    from onnx import ModelProto

INPUTS = {"waveforms": ("batch", "samples"), "lengths": ("batch",)}
OUTPUTS = ("embeddings", "log_probabilities")
logger = logging.getLogger(__name__)
FOURIER = "features.basis"
MISSING = 'ONNX needs onnx, onnxscript and onnxruntime; pip install "ser-plugins[onnx]"'


class FourierConvolution(nn.Module):
    """The features of a `Spectrogram`, by a convolution: onnxruntime's own STFT takes several times as long.

    Example
    -------
    >>> wavs, features = torch.randn(2, 4000), Spectrogram()
    >>> torch.allclose(FourierConvolution(features)(wavs), features(wavs), atol=1e-4)
    True
    """

    basis: Tensor

    def __init__(self, features: Spectrogram) -> None:
        super().__init__()
        self.features = features
        room = features.n_fft - features.win
        window = functional.pad(features.window.double(), (room // 2, room - room // 2))
        spectrum = torch.fft.rfft(torch.diag(window))  # of each sample of a frame
        self.register_buffer("basis", torch.cat([spectrum.real, spectrum.imag], 1).T.unsqueeze(1).float())

    def forward(self, wavs: Tensor) -> Tensor:
        """Compute the features [B, T', F] of ``wavs`` [B, T]."""
        padded = functional.pad(wavs, (self.features.n_fft // 2,) * 2).unsqueeze(1)
        real, imaginary = functional.conv1d(padded, self.basis, stride=self.features.hop).chunk(2, dim=1)
        return self.features.finish((real.square() + imaginary.square()).sqrt().transpose(1, 2), wavs)


class Network(nn.Module):
    """All of a model between the waveforms and the answers."""

    def __init__(self, model: UtteranceClassifier) -> None:
        super().__init__()
        self.features = FourierConvolution(model.mods.compute_features)
        self.norm = model.mods.mean_var_norm
        self.encoder, self.classifier = model.mods.embedding_model, model.mods.classifier

    def forward(self, wavs: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``wavs`` [B, T] with relative ``lengths`` [B] to embeddings [B, 1, E] and log-probabilities [B, C]."""
        embeddings = self.encoder(self.norm(self.features(wavs), lengths), lengths)
        return embeddings, self.classifier(embeddings).squeeze(1)


def convert(
    module: nn.Module, example: tuple[Tensor, ...], inputs: Mapping[str, Sequence[str]], outputs: Sequence[str]
) -> ModelProto:
    """Convert a module, in evaluation mode, to ONNX.

    Parameters
    ----------
    module : torch.nn.Module
        What is converted; its mode is set.
    example : tuple of torch.Tensor
        Inputs of any values; an axis that is to vary must be longer than 1 in them.
    inputs : mapping
        Name of each input, and the names of its first axes, which may have any length; axes of one name have the same.
    outputs : sequence of str
        Names of the outputs.

    Returns
    -------
    onnx.ModelProto
        The graph with its weights.

    Raises
    ------
    InputError
        If a package is missing.
    """
    try:
        import onnxscript  # noqa: F401, PLC0415 — PyTorch's exporter would miss it late, and in many lines
    except ImportError as error:
        raise InputError(MISSING) from error
    with _quietly():
        program = torch.onnx.export(
            module.eval(),
            example,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=tuple(dict(enumerate(axes)) for axes in inputs.values()),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    return _bare(program.model_proto)


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep exporter and quantiser from telling of each node that they change."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _bare(model: ModelProto) -> ModelProto:
    """Drop what the exporter notes of each step: lines of source code, and their paths on this machine."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    graph.ClearField("value_info")
    return model


def export(
    source: str | Path,
    path: Path,
    int8: Path | None = None,
    revision: str | None = None,
    speaker: Recordings | None = None,
) -> None:
    """Write a model folder as ONNX.

    Voice activity detection, resampling and downmixing stay outside: the graph takes what the folder's
    ``audio_normalizer`` returns.

    Parameters
    ----------
    source : str or pathlib.Path
        Folder, or USER/NAME on the Hub, as `ser_plugins.load` takes it.
    path : pathlib.Path
        The file to write: ``waveforms`` [batch, samples], 16 kHz, and relative ``lengths`` [batch] to ``embeddings``
        [batch, 1, E] and ``log_probabilities`` [batch, C]. Its metadata are ``labels``, ``sample_rate``,
        ``audio_normalizer`` (JSON), ``checksum``, that of the model, weights included, and ``told_speaker``.
    int8 : pathlib.Path, optional
        Where to write the same with weights and activations of 8 bits.
    revision : str, optional
        Branch, tag or commit on the Hub.
    speaker : path or iterable of paths, optional
        Whose voice the file is for, as `ser_plugins.inference.adapt` takes it, where the model normalises by speaker.

    Raises
    ------
    InputError
        If the model has no spectrogram, or cannot use the speaker, a package is missing, or a file cannot be written.
    """
    model = load(source, revision)
    features = model.mods.compute_features
    if not isinstance(features, Spectrogram):
        front = getattr(model.mods.embedding_model, "backbone", features)
        raise InputError(f"{source} hears through {type(front).__name__}, which ONNX has not; give one of spectrograms")
    adapt_or_warn(model, speaker)
    logger.info("converting %s, which takes half a minute", source)
    # Any second that is not too short will do; PyTorch keeps the length of an axis that has length 1.
    proto = convert(Network(model), (torch.zeros(2, features.sample_rate), torch.ones(2)), INPUTS, OUTPUTS)
    for key, value in describe(model).items():
        proto.metadata_props.add(key=key, value=value)
    atomic_write(path, proto.SerializeToString())
    if int8 is not None:
        quantise(path, int8)


def describe(model: UtteranceClassifier) -> dict[str, str]:
    """What the user of the file must know."""
    encoder, normalizer = model.hparams.label_encoder, model.audio_normalizer
    return {
        "labels": json.dumps([encoder.ind2lab[i] for i in range(len(encoder))], ensure_ascii=False),
        "sample_rate": str(normalizer.sample_rate),
        "audio_normalizer": json.dumps({"vad": normalizer.vad}),
        "checksum": model.checksum,
        "told_speaker": json.dumps(told_voice(model) is not None),
    }


def quantise(path: Path, int8: Path) -> None:
    """Write an exported model with weights of 8 bits, and activations that are rounded to 8 bits as they come.

    Convolutions and matrix products are; the Fourier transform stays in float32.

    Parameters
    ----------
    path : pathlib.Path
        As `export` wrote it.
    int8 : pathlib.Path
        The file to write.
    """
    try:
        import onnx  # noqa: PLC0415
        from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415
    except ImportError as error:
        raise InputError(MISSING) from error
    fourier = [node.name for node in onnx.load(path).graph.node if FOURIER in node.input]
    with atomic_path(int8) as part, _quietly():
        # Unsigned: onnxruntime convolves signed weights several times more slowly.
        quantize_dynamic(path, part, weight_type=QuantType.QUInt8, nodes_to_exclude=fourier)
