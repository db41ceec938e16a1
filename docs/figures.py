"""Draw the diagrams of these pages: python docs/figures.py."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

from ser_plugins.evaluation.figures import draw_stress, svg
from ser_plugins.metric import COORDINATES, WHEEL

HERE = Path(__file__).parent
STRESS = HERE.parent / "results_records/models/emotions/stress.json"
GREY = "#555555"
COLOURS = {"negative": "#c0504d", "positive": "#3b7d4f", "neutral": "#666666"}
NAMES = {  # where an emotion's name is not above its point
    "angry": (0.0, 0.06, "left", "bottom"),
    "fearful": (-0.05, 0.0, "right", "center"),
    "disgust": (-0.05, 0.0, "right", "center"),
    "sad": (0.0, -0.06, "center", "top"),
    "neutral": (0.0, -0.06, "center", "top"),
    "calm": (0.0, -0.06, "center", "top"),
}
STEPS = [
    ("recording", "any rate, any\nnumber of channels"),
    ("speech", "mono, 16 kHz,\nsilence removed"),
    ("spectrogram", "257 bins × T,\nnormalised"),
    ("descriptors", "128 × T / 16"),
    ("aggregate", "8 × 128"),
    ("embedding", "512"),
    ("emotion", "log-probabilities"),
]
ARROWS = [
    "SpeechNormalizer",
    "Spectrogram",
    "SEResNet34",
    "GhostVLAD",
    "linear layer",
    "SVM or softmax",
]
RINGS = [
    ("3  the paper", "experiments, commands; recipes/", "#f7f1ee"),
    ("2  training and use", "configuration, corpora, model_folder, evaluation,\ntraining, inference, hub", "#eef2f7"),
    (
        "1  plugins",
        "models: backbones, poolings, classifiers\nmetric: losses, mining, wheel\naudio: features",
        "#e6f2e9",
    ),
]


def pipeline(path: Path) -> None:
    """Boxes are what there is, arrows what turns one into the next."""
    _, axes = plt.subplots(figsize=(13, 2.6))
    for i, (name, about) in enumerate(STEPS):
        box = {"boxstyle": "round,pad=0.5", "facecolor": "#eef2f7", "edgecolor": GREY}
        axes.text(2 * i, 0, name, ha="center", va="center", fontsize=11, bbox=box)
        axes.text(2 * i, -0.55, about, ha="center", va="top", fontsize=9, color=GREY)
    for i, name in enumerate(ARROWS):
        arrow = {"arrowstyle": "->", "color": GREY}
        axes.annotate("", (2 * i + 1.25, 0), (2 * i + 0.75, 0), arrowprops=arrow)
        axes.text(2 * i + 1, 0.5, name, ha="center", fontsize=9)
    axes.annotate("", (10, 0.45), (10, 1.0), arrowprops={"arrowstyle": "->", "color": COLOURS["negative"]})
    axes.text(10, 1.05, "triplets under the emotion constraint", ha="center", fontsize=9, color=COLOURS["negative"])
    axes.set(xlim=(-1, 13.2), ylim=(-1.2, 1.4))
    finish(axes, path)


def wheel(path: Path) -> None:
    """Emotions in the plane of valence and arousal, and what they are to an angry anchor."""
    _, axes = plt.subplots(figsize=(6.5, 5.6))
    axes.axhline(0, color="#cccccc", lw=0.8)
    axes.axvline(0, color="#cccccc", lw=0.8)
    for emotion, (valence, arousal) in COORDINATES.items():
        axes.scatter(valence, arousal, s=70, color=COLOURS[WHEEL[emotion]], zorder=3)
        name = f"{emotion} (anchor)" if emotion == "angry" else emotion
        dx, dy, side, vertical = NAMES.get(emotion, (0.0, 0.06, "center", "bottom"))
        axes.text(valence + dx, arousal + dy, name, ha=side, va=vertical, fontsize=11)
    related = {"color": COLOURS["negative"], "arrowstyle": "-", "lw": 1.2, "ls": "--"}
    negative = {"color": GREY, "arrowstyle": "-", "lw": 0.8, "ls": ":"}
    for emotion in COORDINATES:
        if emotion != "angry":
            line = related if WHEEL[emotion] == WHEEL["angry"] else negative
            axes.annotate("", COORDINATES[emotion], COORDINATES["angry"], arrowprops=line)
    axes.text(
        -1.1, -0.68, "- -  related: the same polarity\n· · ·  negative: another polarity", fontsize=10, color=GREY
    )
    axes.text(1.15, 0.03, "valence", ha="right", color=GREY)
    axes.text(0.03, 0.92, "arousal", color=GREY)
    axes.set(xlim=(-1.15, 1.15), ylim=(-0.75, 1.0))
    finish(axes, path)


def rings(path: Path) -> None:
    """Three rings, each usable without the next; arrows are imports."""
    _, axes = plt.subplots(figsize=(9, 4.6))
    arrow = {"arrowstyle": "->", "color": COLOURS["negative"], "lw": 1.5}
    for i, (name, about, colour) in enumerate(RINGS):
        half, top = 4.3 - 1.2 * i, 2.3 - 1.15 * i
        frame = {"boxstyle": "round,pad=0.1", "facecolor": colour, "edgecolor": GREY}
        axes.add_patch(FancyBboxPatch((-half, 0.4 * i - 2.3), 2 * half, top + 2.3 - 0.4 * i, **frame))
        axes.text(0, top, name, ha="center", va="top", fontsize=12)
        axes.text(0, top - 0.32, about, ha="center", va="top", fontsize=9, color=GREY)
        if i:
            axes.annotate("", (half - 0.1, -1.0), (half + 0.7, -1.0), arrowprops=arrow)
            axes.text(half + 0.45, -1.1, "imports", ha="center", va="top", fontsize=9, color=COLOURS["negative"])
    axes.set(xlim=(-4.6, 4.6), ylim=(-2.5, 2.5))
    finish(axes, path)


def finish(axes: Axes, path: Path) -> None:
    """Write a figure, the same at each run."""
    axes.axis("off")
    axes.figure.savefig(path, bbox_inches="tight", metadata={"Date": None})


if __name__ == "__main__":
    mpl.rcParams.update({"svg.hashsalt": "ser-plugins", "font.family": "DejaVu Sans"})
    pipeline(HERE / "pipeline.svg")
    wheel(HERE / "wheel.svg")
    rings(HERE / "rings.svg")
    rows = json.loads(STRESS.read_text(encoding="utf-8"))["stress"]
    (HERE / "stress.svg").write_bytes(svg(partial(draw_stress, rows=rows), 6.5, 4.5))
