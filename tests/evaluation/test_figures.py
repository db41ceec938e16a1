"""Figures that open, have a size, and show the matrix."""

import os
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from ser_plugins.evaluation.figures import confusion_figure

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
    assert sorted(os.listdir(path.parent)) == ["confusion.png", "confusion.svg"]
    svg = ElementTree.parse(path.with_suffix(".svg")).getroot()
    assert [float(svg.get(name).removesuffix("pt")) for name in ("width", "height")] == pytest.approx(
        [side / 110 * 72] * 2
    )


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
        drawn.clear()  # PNG and SVG are of one figure
        drawn.extend(text.get_text() for text in figure.axes[0].texts)
        drawn.append(figure.axes[0].get_title())
        original(figure, *args, **options)

    monkeypatch.setattr(Figure, "savefig", savefig)
    confusion_figure([row, [0, 5]], LABELS[:2], "S3, fold 2", tmp_path / "confusion.png")
    assert drawn == [*texts, "0", "100", "S3, fold 2"]


def test_a_name_with_dollar_signs_is_no_formula(tmp_path):
    names = [r"$\frac$", r"$\no$"]  # neither is one that Matplotlib could set
    confusion_figure([[1, 0], [0, 1]], names, names[0], tmp_path / "confusion.png")


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


def test_a_figure_drawn_twice_is_the_same_file(tmp_path):
    files = [tmp_path / name for name in ("one.png", "two.png")]
    for file in files:
        confusion_figure([[1, 2], [3, 4]], LABELS[:2], "S1", file)
    for suffix in (".png", ".svg"):
        assert files[0].with_suffix(suffix).read_bytes() == files[1].with_suffix(suffix).read_bytes()
