"""Export a model to ONNX, which onnxruntime runs without PyTorch, in float32 and in 8-bit integers."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ser_plugins.audio.fbank import KaldiFbank
from ser_plugins.audio.speaker import SpeakerStatistics
from ser_plugins.audio.spectrogram import Spectrogram
from ser_plugins.errors import InputError
from ser_plugins.files import atomic_path, atomic_write
from ser_plugins.inference.speaker import Recordings, statistics_or_warning
from ser_plugins.model_folder.forward import embed
from ser_plugins.model_folder.layout import WEIGHTS
from ser_plugins.model_folder.loading import UtteranceClassifier, load
from ser_plugins.model_folder.source import local_folder

if TYPE_CHECKING:
    from onnx import ModelProto

INPUTS = {"waveforms": ("batch", "samples"), "lengths": ("batch",)}
OUTPUTS = ("embeddings", "log_probabilities")
logger = logging.getLogger(__name__)
FOURIER = "parts.compute_features.power.basis"
MISSING = 'ONNX needs onnx, onnxscript and onnxruntime; pip install "ser-plugins[onnx]"'


class FourierConvolution(nn.Module):
    """Power spectra of frames computed by a convolution; onnxruntime's STFT is several times slower.

    Parameters
    ----------
    spectrum : torch.Tensor
        Complex spectra of the unit vectors, [win, n_fft / 2 + 1]: row t is the contribution of sample t of a frame.
    hop : int
        Samples from a frame to the next.
    """

    basis: Tensor

    def __init__(self, spectrum: Tensor, hop: int) -> None:
        super().__init__()
        self.hop = hop
        self.register_buffer("basis", torch.cat([spectrum.real, spectrum.imag], 1).T.unsqueeze(1).float())

    def forward(self, wavs: Tensor) -> Tensor:
        """Compute the power [B, T', n_fft / 2 + 1] of the frames of ``wavs`` [B, T]."""
        real, imaginary = functional.conv1d(wavs.unsqueeze(1), self.basis, stride=self.hop).chunk(2, dim=1)
        return (real.square() + imaginary.square()).transpose(1, 2)


class ExportedSpectrogram(nn.Module):
    """Features of a `Spectrogram` by operations of ONNX.

    Example
    -------
    >>> wavs, features = torch.randn(2, 4000), Spectrogram()
    >>> torch.allclose(ExportedSpectrogram(features)(wavs), features(wavs), atol=1e-2)
    True
    """

    def __init__(self, features: Spectrogram) -> None:
        super().__init__()
        self.features = features
        margin = features.n_fft - features.win
        window = functional.pad(features.window.double(), (margin // 2, margin - margin // 2))
        self.power = FourierConvolution(torch.fft.rfft(torch.diag(window)), features.hop)

    def forward(self, wavs: Tensor) -> Tensor:
        """Compute the features [B, T', F] of ``wavs`` [B, T]."""
        return self.features.finish(self.power(functional.pad(wavs, (self.features.n_fft // 2,) * 2)).sqrt(), wavs)


class ExportedFbank(nn.Module):
    """Features of a `KaldiFbank` by operations of ONNX, for clips of a frame or more.

    Example
    -------
    >>> wavs, features = torch.randn(2, 4000), KaldiFbank()
    >>> torch.allclose(ExportedFbank(features)(wavs), features(wavs), atol=1e-3)
    True
    """

    def __init__(self, features: KaldiFbank) -> None:
        super().__init__()
        self.features = features
        self.power = FourierConvolution(features.transform(torch.eye(features.win).double()), features.hop)

    def forward(self, wavs: Tensor) -> Tensor:
        """Compute the features [B, T', F] of ``wavs`` [B, T]."""
        return self.features.finish(self.power(wavs), wavs)


FEATURES = {Spectrogram: ExportedSpectrogram, KaldiFbank: ExportedFbank}


class Network(nn.Module):
    """The whole model from waveforms to log-probabilities, with statistics of a speaker as constants.

    Parameters
    ----------
    model : UtteranceClassifier
        A model whose features are among `FEATURES`.
    speaker : SpeakerStatistics, optional
        Statistics of the speaker that the network is for.
    """

    speaker_features: Tensor | None
    speaker_embedding: Tensor | None

    def __init__(self, model: UtteranceClassifier, speaker: SpeakerStatistics | None = None) -> None:
        super().__init__()
        features = model.mods.compute_features
        make = next(make for kind, make in FEATURES.items() if isinstance(features, kind))
        self.parts = nn.ModuleDict({**model.mods, "compute_features": make(features)})
        speaker = speaker or SpeakerStatistics()
        self.register_buffer("speaker_features", speaker.features)
        self.register_buffer("speaker_embedding", speaker.embedding)

    def forward(self, wavs: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``wavs`` [B, T] with relative ``lengths`` [B] to embeddings [B, 1, E] and log-probabilities [B, C]."""
        speaker = SpeakerStatistics(self.speaker_features, self.speaker_embedding)
        embeddings = embed(dict(self.parts.items()), wavs, lengths, speaker)
        return embeddings, self.parts["classifier"](embeddings).squeeze(1)


def convert(
    module: nn.Module,
    example: tuple[Tensor, ...],
    inputs: Mapping[str, Sequence[str]],
    outputs: Sequence[str],
    keep_weights: bool = False,
) -> ModelProto:
    """Convert a module in evaluation mode to ONNX.

    Parameters
    ----------
    module : torch.nn.Module
        The module; it is set to evaluation mode.
    example : tuple of torch.Tensor
        Inputs of any values; an axis of variable length must be longer than 1 in them.
    inputs : mapping
        Name of each input, and the names of its first axes, which have variable length; axes of one name agree.
    outputs : sequence of str
        Names of the outputs.
    keep_weights : bool
        Keep each array of weights as it is. Otherwise batch normalisation becomes part of the convolution before it.

    Returns
    -------
    onnx.ModelProto
        The graph with its weights, without source lines and paths.

    Raises
    ------
    InputError
        If a package is missing.
    """
    try:
        import onnxscript.optimizer  # noqa: PLC0415 — PyTorch's exporter reports it late, and in many lines
    except ImportError as error:
        raise InputError(MISSING) from error
    with _warnings_off():
        program = torch.onnx.export(
            module.eval(),
            example,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=tuple(dict(enumerate(axes)) for axes in inputs.values()),
            dynamo=True,
            verbose=False,
            optimize=not keep_weights,
        )
        assert program is not None
        if keep_weights:
            onnxscript.optimizer.fold_constants(program.model)
            onnxscript.optimizer.remove_unused_nodes(program.model)
    return _strip(program.model_proto)


@contextmanager
def _warnings_off() -> Iterator[None]:
    """Silence the exporter and the quantiser, which report each node that they change."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _strip(model: ModelProto) -> ModelProto:
    """Remove the exporter's notes of each node: lines of source code and their paths on this machine."""
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
    """Export a model to ONNX.

    Downmixing, resampling and voice activity detection stay outside: the input of the graph is the output of the
    model's ``audio_normalizer``.

    Parameters
    ----------
    source : str or pathlib.Path
        Model folder or USER/NAME on the Hub, as `ser_plugins.load` takes it.
    path : pathlib.Path
        The file to write: ``waveforms`` [batch, samples] at 16 kHz and relative ``lengths`` [batch] in; ``embeddings``
        [batch, 1, E] and ``log_probabilities`` [batch, C] out. For its metadata see `metadata`. Inside the model
        folder, the file refers to the folder's weights instead of holding them.
    int8 : pathlib.Path, optional
        A second file to write, with weights and activations of 8 bits.
    revision : str, optional
        Branch, tag or commit on the Hub.
    speaker : path or iterable of paths, optional
        Recordings of the speaker that the file is for; see `ser_plugins.inference.speaker_statistics`. The statistics
        are constants of the graph.

    Raises
    ------
    InputError
        If the features of the model have no ONNX form, the model cannot use the speaker, ``int8`` is given inside the
        model folder, a package is missing, or a file cannot be written.
    """
    folder = local_folder(source)
    inside = folder is not None and path.parent.resolve() == folder.resolve()
    if inside and int8 is not None:
        raise InputError("inside the model folder a graph has no weights of its own; give --int8 with another --onnx")
    model = load(source, revision)
    features = model.mods.compute_features
    if not isinstance(features, tuple(FEATURES)):
        front = getattr(model.mods.embedding_model, "backbone", features)
        raise InputError(
            f"{source} computes features by {type(front).__name__}, which ONNX does not have; "
            "give a model of spectrograms or filterbanks"
        )
    statistics = statistics_or_warning(model, speaker)
    logger.info("converting %s, which takes a minute or two", source)
    # A second of zeros is long enough; PyTorch fixes the length of an axis that has length 1.
    example = torch.zeros(2, model.audio_normalizer.sample_rate), torch.ones(2)
    proto = convert(Network(model, statistics), example, INPUTS, OUTPUTS, keep_weights=inside)
    if inside:
        refer_to_weights(proto, path.parent / WEIGHTS)
    for key, value in metadata(model, statistics).items():
        proto.metadata_props.add(key=key, value=value)
    atomic_write(path, proto.SerializeToString())
    if int8 is not None:
        quantise(path, int8)


def refer_to_weights(model: ModelProto, weights: Path) -> None:
    """Let a graph read its arrays from a file of safetensors in the same folder, where that has the same values.

    Arrays in half precision are cast when the graph is loaded.

    Parameters
    ----------
    model : onnx.ModelProto
        A graph of `Network` whose weights were kept; it is changed.
    weights : pathlib.Path
        The ``model.safetensors`` of the model folder.
    """
    from onnx import TensorProto, helper, numpy_helper  # noqa: PLC0415

    kinds = {"F16": (TensorProto.FLOAT16, np.float16), "F32": (TensorProto.FLOAT, np.float32)}
    data = weights.read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")  # after the header and its length
    entries = json.loads(data[8:begin])
    casts = []
    for tensor in model.graph.initializer:
        entry = entries.get(tensor.name.removeprefix("parts."))
        if entry is None or entry["dtype"] not in kinds or entry["shape"] != list(tensor.dims):
            continue
        kind, dtype = kinds[entry["dtype"]]
        first, last = (begin + offset for offset in entry["data_offsets"])
        if not np.array_equal(
            np.frombuffer(data[first:last], dtype).reshape(tensor.dims), numpy_helper.to_array(tensor)
        ):
            continue
        name = tensor.name if kind == tensor.data_type else f"{tensor.name}.half"
        if name != tensor.name:
            casts.append(helper.make_node("Cast", [name], [tensor.name], to=tensor.data_type))
        places = {"location": weights.name, "offset": str(first), "length": str(last - first)}
        tensor.CopyFrom(TensorProto(name=name, data_type=kind, dims=tensor.dims, data_location=TensorProto.EXTERNAL))
        for key, value in places.items():
            tensor.external_data.add(key=key, value=value)
    nodes = [*casts, *model.graph.node]
    model.graph.ClearField("node")
    model.graph.node.extend(nodes)


def metadata(model: UtteranceClassifier, speaker: SpeakerStatistics | None = None) -> dict[str, str]:
    """Return the metadata of an exported file.

    Returns
    -------
    dict
        ``labels`` (JSON), ``sample_rate``, ``audio_normalizer`` (its arguments as JSON), ``checksum`` of the model, and
        ``speaker_statistics``: whether statistics of a speaker are part of the graph.
    """
    encoder, normalizer = model.hparams.label_encoder, model.audio_normalizer
    return {
        "labels": json.dumps([encoder.ind2lab[i] for i in range(len(encoder))], ensure_ascii=False),
        "sample_rate": str(normalizer.sample_rate),
        "audio_normalizer": json.dumps({"vad": normalizer.vad}),
        "checksum": model.checksum,
        "speaker_statistics": json.dumps(speaker is not None),
    }


def quantise(path: Path, int8: Path) -> None:
    """Quantise an exported model: weights of 8 bits, activations rounded to 8 bits as they are computed.

    Convolutions and matrix products are quantised; the Fourier transform stays in float32.

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
    with atomic_path(int8) as part, _warnings_off():
        # Unsigned: onnxruntime is several times slower with signed weights.
        quantize_dynamic(path, part, weight_type=QuantType.QUInt8, nodes_to_exclude=fourier)
