"""The web page of ``ser-plugins demo``: emotion, spectrogram and timeline of a clip, and its place on a map."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from torch import Tensor

from ser_plugins.audio.reading import SAMPLE_RATE
from ser_plugins.audio.speaker import SpeakerStatistics
from ser_plugins.audio.spectrogram import Spectrogram
from ser_plugins.errors import InputError
from ser_plugins.evaluation.figures import COLOURS, STYLE
from ser_plugins.inference.batches import NOT_FINITE, classify, embed_speech, select_labels
from ser_plugins.inference.drawing import draw_timeline
from ser_plugins.inference.speaker import normalizes_by_speaker, speaker_statistics
from ser_plugins.inference.timelines import timeline
from ser_plugins.inference.utterances import decide
from ser_plugins.model_folder.embedding_map import MAP, EmbeddingMap
from ser_plugins.model_folder.loading import UtteranceClassifier, load
from ser_plugins.model_folder.saving import CONFIG, WEIGHTS
from ser_plugins.model_folder.source import find_folder

if TYPE_CHECKING:
    import gradio

UNKNOWN_BELOW = "Answer unknown below this probability"
WINDOW, HOP = 2.0, 0.5  # seconds; shorter than those of `timeline`, for clips are short
ABOUT = """# Speech emotion

`{source}`

Record or drop a clip of one speaker. The model was trained on acted speech: it predicts what an actor would express by
such a voice, not what anyone feels.
"""
ABOUT_SPEAKER = """
The model normalises by speaker: give it eight or more recordings of the speaker alone, with many emotions.
"""


def make_app(source: str | Path, revision: str | None = None) -> gradio.Blocks:
    """Make the page of a model.

    Parameters
    ----------
    source : str or pathlib.Path
        Model folder, or USER/NAME on the Hub, as for `ser_plugins.load`.
    revision : str, optional
        Branch, tag or commit on the Hub.

    Returns
    -------
    gradio.Blocks
        The page; ``launch()`` serves it.

    Raises
    ------
    InputError
        If gradio is not installed, or the model cannot be loaded.
    """
    try:
        import gradio as gr  # noqa: PLC0415
    except ImportError as error:
        raise InputError('the page needs Gradio; pip install "ser-plugins[demo]"') from error
    folder = find_folder(source, [CONFIG, WEIGHTS, MAP], revision)
    model, embedding_map = load(folder), EmbeddingMap.read(folder)
    by_speaker = normalizes_by_speaker(model)

    def update(path: str | None, recordings: list[str] | None, unknown: float) -> list[Any]:
        if path is None:
            return [None] * len(outputs)
        try:
            statistics = speaker_statistics(model, recordings) if recordings else None
            probabilities, *figures = analyse(model, embedding_map, path, statistics)
        except InputError as error:
            message = str(error)
            for uploaded in (path, *(recordings or [])):  # the visitor knows the name of a file, not its path here
                message = message.replace(uploaded, Path(uploaded).name)
            raise gr.Error(message) from error
        return [probabilities, answer(probabilities, unknown), probabilities, *figures]

    with gr.Blocks(title="ser-plugins", analytics_enabled=False) as app:
        gr.Markdown(ABOUT.format(source=source) + ABOUT_SPEAKER * by_speaker)
        known = gr.State()  # the probabilities of the clip, so that another threshold needs no other run of the model
        with gr.Row():
            with gr.Column():
                clip = gr.Audio(type="filepath", sources=["upload", "microphone"], label="Clip")
                speaker = gr.File(file_count="multiple", label="Recordings of the speaker", visible=by_speaker)
                emotion = gr.Label(label="Emotion")
                unknown = gr.Slider(0, 1, value=0, step=0.05, label=UNKNOWN_BELOW, info="0: never")
                outputs = [known, emotion, gr.Label(label="Probabilities", show_heading=False)]
            with gr.Column():
                outputs += [gr.Plot(show_label=False) for _ in range(2 if embedding_map is None else 3)]
        gr.on([clip.change, speaker.change], update, [clip, speaker, unknown], outputs)
        unknown.change(answer, [known, unknown], emotion)
    return app


def answer(probabilities: Mapping[str, float] | None, unknown: float) -> str | None:
    """Answer as `ser_plugins.inference.predict` does with ``unknown``; None without a clip.

    Example
    -------
    >>> answer({"happy": 0.25, "sad": 0.75}, 0.5), answer({"happy": 0.25, "sad": 0.75}, 0.8)
    ('sad', 'unknown')
    """
    if probabilities is None:
        return None
    return decide(list(probabilities), torch.tensor([list(probabilities.values())]), unknown)[0][0]


def analyse(
    model: UtteranceClassifier,
    embedding_map: EmbeddingMap | None,
    path: str | Path,
    speaker: SpeakerStatistics | None = None,
) -> list[Any]:
    """Analyse an audio file.

    Returns
    -------
    list
        Probability of each emotion (dict), figures of the spectrogram and of the emotion over time, and, with a map, a
        figure of the embedding among those of the training utterances.

    Raises
    ------
    InputError
        If the file cannot be read or is silent, or the output of the model is not finite.
    """
    speech = model.load_audio(path)
    embedding = embed_speech(model, [speech], speaker=speaker)
    labels, classes = select_labels(model, None)
    values = classify(model, embedding, classes)[0]
    if not (embedding.isfinite().all() and values.isfinite().all()):
        raise InputError(f"{path}: {NOT_FINITE}")
    frame = timeline(model, path, WINDOW, HOP, speaker=speaker)
    figures = [spectrogram_figure(speech.cpu()), time_figure(frame)]
    if embedding_map is not None:
        figures.append(map_figure(embedding_map, embedding[0].numpy()))
    return [dict(zip(labels, values.tolist(), strict=True)), *figures]


def spectrogram_figure(speech: Tensor) -> Figure:
    """Draw the spectrogram of speech, samples [T] at 16 kHz."""
    decibels = 20 * Spectrogram(log=False)(speech[None])[0].clamp(min=1e-5).log10()
    with rc_context(STYLE):
        figure = Figure(figsize=(6, 2.6), layout="constrained")
        axes = figure.subplots()
        end, top = len(speech) / SAMPLE_RATE, float(decibels.max())
        axes.imshow(decibels.T, origin="lower", aspect="auto", extent=(0, end, 0, 8), vmin=top - 80, cmap="cividis")
        axes.set(xlabel="seconds of speech, silence removed", ylabel="kHz", title="Spectrogram")
    return figure


def time_figure(frame: pd.DataFrame) -> Figure:
    """Draw the rows of `ser_plugins.inference.timeline`."""
    with rc_context(STYLE):
        figure = Figure(figsize=(6, 2.6), layout="constrained")
        draw_timeline(figure, frame, "Emotion over time")
    return figure


def map_figure(embedding_map: EmbeddingMap, embedding: np.ndarray[Any, np.dtype[np.float32]]) -> Figure:
    """Draw an embedding [E] among those of the training utterances."""
    with rc_context(STYLE):
        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.subplots()
        for i, emotion in enumerate(dict.fromkeys(embedding_map.emotions.tolist())):
            x, y = embedding_map.points[embedding_map.emotions == emotion].T
            axes.scatter(x, y, s=9, alpha=0.6, color=COLOURS[i % len(COLOURS)], label=emotion, linewidths=0)
        x, y = embedding_map.project(embedding)
        axes.scatter(x, y, s=260, marker="*", color="white", edgecolors="black", label="this clip")
        axes.spines[:].set_visible(False)
        axes.set(xticks=[], yticks=[], aspect="equal", title="Among the training utterances")
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
