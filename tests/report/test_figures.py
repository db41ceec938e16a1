"""Figures that open, have a size, and show the matrix."""

import os

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from ser_plugins.report.figures import confusion_figure

LABELS = ["neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised"]
FULL = (8, 48, 107)  # the colour of 100 %


def share_of(colour, path):
    with Image.open(path) as image:
        return (np.asarray(image.convert("RGB")) == colour).all(-1).mean()


@pytest.mark.parametrize("count", [2, 8])
def test_figure_is_a_square_that_grows_with_the_labels(tmp_path, count):
    path = tmp_path / "new" / "confusion.png"
    confusion_figure(np.eye(count, dtype=int).tolist(), LABELS[:count], "S1", path)
    with Image.open(path) as image:
        side = (2.6 + 0.62 * count) * 110
        assert image.format == "PNG" and image.size == pytest.approx((side, side), abs=1)
        image.verify()
    assert os.listdir(path.parent) == ["confusion.png"]


def test_colours_are_percent_of_the_rows(tmp_path):
    right, one, none = tmp_path / "right.png", tmp_path / "one.png", tmp_path / "none.png"
    confusion_figure([[1, 0], [0, 50]], LABELS[:2], "", right)
    confusion_figure([[7, 0], [0, 0]], LABELS[:2], "", one)
    confusion_figure([[0, 0], [0, 0]], LABELS[:2], "", none)
    assert share_of(FULL, right) > 0.1
    assert share_of(FULL, one) == pytest.approx(share_of(FULL, right) / 2, rel=0.1)
    assert share_of(FULL, none) == 0


@pytest.mark.parametrize(("row", "texts"), [([1, 2], ["33", "67"]), ([0, 0], ["0", "0"])])
def test_cells_say_their_percent(tmp_path, monkeypatch, row, texts):
    drawn = []
    original = Figure.savefig

    def savefig(figure, *args, **options):
        drawn.extend(text.get_text() for text in figure.axes[0].texts)
        drawn.append(figure.axes[0].get_title())
        original(figure, *args, **options)

    monkeypatch.setattr(Figure, "savefig", savefig)
    confusion_figure([row, [0, 5]], LABELS[:2], "S3, fold 2", tmp_path / "confusion.png")
    assert drawn == [*texts, "0", "100", "S3, fold 2"]


def test_a_figure_that_fails_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "confusion.png"
    path.write_bytes(b"old")

    def half(figure, part, **options):
        part.write_bytes(b"half of")
        raise OSError("no space left")

    monkeypatch.setattr(Figure, "savefig", half)
    with pytest.raises(OSError, match="no space"):
        confusion_figure([[1]], LABELS[:1], "", path)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["confusion.png"]
