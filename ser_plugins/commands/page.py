"""A page that hears an utterance: its spectrogram, its emotion, and where it falls among those of the training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure
from torch import Tensor

from ser_plugins.audio.spectrogram import Spectrogram
from ser_plugins.errors import InputError
from ser_plugins.evaluation.figures import COLOURS, STYLE
from ser_plugins.inference.batches import choose_labels, classify, embed_speech
from ser_plugins.inference.timeline import draw_timeline, timeline
from ser_plugins.inference.voice import adapt, forget, normalises_by_speaker
from ser_plugins.model_folder.embedding_map import MAP, EmbeddingMap
from ser_plugins.model_folder.loading import UtteranceClassifier, load
from ser_plugins.model_folder.saving import CONFIG, WEIGHTS
from ser_plugins.model_folder.source import find_folder

if TYPE_CHECKING:
    import gradio

SLIDING = 2.0, 0.5  # seconds of a window and a step: clips are short
ABOUT = """# Speech emotion

`{source}`

Record or drop a clip of one speaker. The model has learnt from acted speech; it tells what an actor would have meant by
sounding so, not what anyone feels.
"""
ASK = """
It hears a voice against that voice's usual self: give it recordings of the speaker alone, eight or more, of many
emotions.
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
    model, places = load(folder), EmbeddingMap.read(folder)
    by_speaker = normalises_by_speaker(model)

    def hear(path: str | None, voice: list[str] | None) -> list[Any]:
        if path is None:
            return [None] * len(shown)
        try:
            if voice:
                adapt(model, voice)
            else:
                forget(model)
            return analyse(model, places, path)
        except InputError as error:
            told = str(error)
            for sent in (path, *(voice or [])):  # where the page keeps it is nobody's business
                told = told.replace(sent, Path(sent).name)
            raise gr.Error(told) from error

    with gr.Blocks(title="ser-plugins", analytics_enabled=False) as app:
        gr.Markdown(ABOUT.format(source=source) + ASK * by_speaker)
        with gr.Row():
            with gr.Column():
                clip = gr.Audio(type="filepath", sources=["upload", "microphone"], label="Clip")
                voices = gr.File(file_count="multiple", label="Recordings of the speaker", visible=by_speaker)
                shown = [gr.Label(label="Emotion")]
            with gr.Column():
                shown += [gr.Plot(show_label=False) for _ in range(2 if places is None else 3)]
        gr.on([clip.change, voices.change], hear, [clip, voices], shown)
    return app


def analyse(model: UtteranceClassifier, places: EmbeddingMap | None, path: str | Path) -> list[Any]:
    """Hear a sound file: probability of each emotion, spectrogram, emotion over time, and its place among others."""
    speech = model.load_audio(path)
    embedding = embed_speech(model, [speech])
    labels, classes = choose_labels(model, None)
    probabilities = dict(zip(labels, classify(model, embedding, classes)[0].tolist(), strict=True))
    figures = [spectrogram_figure(speech.cpu()), time_figure(timeline(model, path, *SLIDING))]
    if places is not None:
        figures.append(place_figure(places, embedding[0].numpy()))
    return [probabilities, *figures]


def spectrogram_figure(speech: Tensor) -> Figure:
    """Draw the spectrogram of speech [T] of 16 kHz."""
    decibels = 20 * Spectrogram()(speech[None])[0].clamp(min=1e-5).log10()
    with rc_context(STYLE):
        figure = Figure(figsize=(6, 2.6), layout="constrained")
        axes = figure.subplots()
        end, top = len(speech) / 16000, float(decibels.max())
        axes.imshow(decibels.T, origin="lower", aspect="auto", extent=(0, end, 0, 8), vmin=top - 80, cmap="cividis")
        axes.set(xlabel="seconds of speech, silence removed", ylabel="kHz", title="Spectrogram")
    return figure


def time_figure(frame: pd.DataFrame) -> Figure:
    """Draw emotion over time, as `ser_plugins.inference.timeline` tells it."""
    with rc_context(STYLE):
        figure = Figure(figsize=(6, 2.6), layout="constrained")
        draw_timeline(figure, frame, "Emotion over time")
    return figure


def place_figure(places: EmbeddingMap, embedding: np.ndarray[Any, np.dtype[np.float32]]) -> Figure:
    """Draw where an embedding [E] falls among those of the training."""
    with rc_context(STYLE):
        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.subplots()
        for i, emotion in enumerate(dict.fromkeys(places.emotions.tolist())):
            x, y = places.points[places.emotions == emotion].T
            axes.scatter(x, y, s=9, alpha=0.6, color=COLOURS[i % len(COLOURS)], label=emotion, linewidths=0)
        x, y = places.place(embedding)
        axes.scatter(x, y, s=260, marker="*", color="white", edgecolors="black", label="this clip")
        axes.spines[:].set_visible(False)
        axes.set(xticks=[], yticks=[], aspect="equal", title="Among the utterances of the training")
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
