"""The answer of a model folder on one recording, by onnxruntime: PyTorch takes longer to import than all of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np

from ser_plugins.audio.checks import check_signal, is_silent
from ser_plugins.audio.reading import Samples, read_audio
from ser_plugins.audio.resampling import resample_array
from ser_plugins.audio.silero import is_near_threshold, onnx_probabilities, speech_segments
from ser_plugins.errors import InputError
from ser_plugins.model_folder.config import checksum_of, read_config, read_weights
from ser_plugins.model_folder.layout import CONFIG, GRAPH, WEIGHTS
from ser_plugins.model_folder.source import local_folder

LONGEST = 30.0  # seconds; the network of PyTorch is faster, which counts more in long recordings


class Answer(NamedTuple):
    """What a model says of a recording: its length, the probability of each label, and a warning of the reader."""

    seconds: float
    probabilities: dict[str, float]
    warning: str | None


class OnnxModel:
    """The graph of a model folder.

    Parameters
    ----------
    session : onnxruntime.InferenceSession
        The graph, as `ser_plugins.inference.onnx.export` writes it.
    metadata : mapping
        Its metadata.
    """

    def __init__(self, session: Any, metadata: Mapping[str, str]) -> None:
        self.session = session
        self.labels: list[str] = json.loads(metadata["labels"])
        self.vad: str = json.loads(metadata["audio_normalizer"])["vad"]

    def answer(self, path: str) -> Answer | None:
        """Classify a recording; None where PyTorch has to: if it is long, cannot be used, or rounding decides."""
        try:
            samples, rate, warning = read_audio(path, LONGEST)
            mono = samples.mean(1)
            check_signal(len(mono), rate, float(abs(mono).max(initial=0)))
            signal = resample_array(mono, rate)
        except Exception:  # whatever a decoder says of what is no sound
            return None
        speech = None if is_silent(mono) else self._speech(signal)
        if speech is None:
            return None
        inputs = {"waveforms": speech[None], "lengths": np.ones(1, np.float32)}
        probabilities = np.exp(self.session.run(["log_probabilities"], inputs)[0][0])
        if not np.isfinite(probabilities).all():
            return None
        return Answer(len(samples) / rate, dict(zip(self.labels, probabilities.tolist(), strict=True)), warning)

    def _speech(self, signal: Samples) -> Samples | None:
        """Join the segments of speech, as `ser_plugins.SpeechNormalizer` does; None where rounding may decide."""
        if self.vad == "none":
            return signal
        probabilities = onnx_probabilities(signal)
        if is_near_threshold(probabilities):
            return None
        segments = speech_segments(probabilities.tolist(), len(signal))
        return np.concatenate([signal[start:end] for start, end in segments]) if segments else signal


def open_graph(source: str) -> OnnxModel | None:
    """Open the graph of a model folder.

    Parameters
    ----------
    source : str
        A folder, or ``builtin:NAME``.

    Returns
    -------
    OnnxModel or None
        None where the folder has no graph of its weights, where the graph depends on a speaker, or without onnxruntime.

    Raises
    ------
    InputError
        If the graph or the weights cannot be read.
    """
    folder = local_folder(source)
    if folder is None or not (folder / GRAPH).is_file() or find_spec("onnxruntime") is None:
        return None
    from onnxruntime import GraphOptimizationLevel, InferenceSession, SessionOptions  # noqa: PLC0415 — optional

    config = read_config(folder / CONFIG)
    read_weights(folder / WEIGHTS, config)
    options = SessionOptions()
    options.graph_optimization_level = GraphOptimizationLevel.ORT_DISABLE_ALL  # which takes longer than one run saves
    try:
        session = InferenceSession(folder / GRAPH, options)
    except Exception as error:  # onnxruntime has a class for each kind, without a common one
        raise InputError(f"{folder / GRAPH} is no graph of this folder; export it again, or delete it") from error
    metadata = session.get_modelmeta().custom_metadata_map
    if metadata.get("checksum") != checksum_of(config) or _depends_on_speaker(config, metadata):
        return None
    model = OnnxModel(session, metadata)
    return model if model.vad in ("silero", "none") else None


def _depends_on_speaker(config: Mapping[str, Any], metadata: Mapping[str, str]) -> bool:
    modes = (module["arguments"].get("speaker_normalization", "none") for module in config["modules"].values())
    return bool(json.loads(metadata["speaker_statistics"])) or any(mode != "none" for mode in modes)
