"""How emotions relate: their polarity on Mikels' wheel, as the paper has it, and their valence and arousal."""

from __future__ import annotations

import ast
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeAlias, TypeGuard, TypeVar

import torch

from ser_plugins.errors import InputError

Place = TypeVar("Place")


class LabelEncoder(Protocol):
    """What is read of SpeechBrain's ``CategoricalEncoder``."""

    ind2lab: Mapping[int, str]


Labels: TypeAlias = "Sequence[str] | str | os.PathLike[str] | LabelEncoder"

EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
"""The emotions of RAVDESS in the order of its codes; CREMA-D has six of them."""

WHEEL: dict[str, str] = {
    "sad": "negative",
    "fearful": "negative",
    "disgust": "negative",
    "angry": "negative",
    "surprised": "positive",
    "happy": "positive",
    "calm": "positive",
    "neutral": "neutral",
}
"""Polarity of each emotion of RAVDESS and CREMA-D.

Mocanu et al. 2021, Section 3.3: sadness, fear, disgust and anger are negative; surprise, happiness and calm positive;
neutral is in the centre, with zero valence and arousal, and so has a polarity of its own.
"""

COORDINATES: dict[str, tuple[float, float]] = {
    "sad": (-0.63, -0.27),
    "fearful": (-0.64, 0.60),
    "disgust": (-0.60, 0.35),
    "angry": (-0.51, 0.59),
    "surprised": (0.40, 0.67),
    "happy": (0.81, 0.51),
    "calm": (0.68, -0.46),
    "neutral": (0.0, 0.0),
}
"""Valence and arousal of each emotion of RAVDESS and CREMA-D, from -1 to 1.

Mean ratings of pleasure and arousal in Table 4 of Russell and Mehrabian, "Evidence for a three-factor theory of
emotions", Journal of Research in Personality 11 (1977). Two are not among its 151 terms: calm has the place of
"relaxed"; neutral the centre, as on the wheel.
"""


def polarity_ids(labels: Sequence[str], polarity: Mapping[str, str] | None = None) -> torch.Tensor:
    """Number the polarity of each label: two labels are related when their numbers are equal.

    Arguments
    ---------
    labels : sequence of str
        Emotions, in the order of their class indices.
    polarity : mapping of str to str, optional
        Label to the name of its polarity, for labels that the wheel does not know or places otherwise; it goes before
        ``WHEEL``. Any names will do: only their equality counts.

    Returns
    -------
    torch.Tensor
        [C] int64; polarities are numbered as they first appear.

    Raises
    ------
    InputError
        A label has no polarity, or the table places a label that is not among ``labels``.

    Example
    -------
    >>> polarity_ids(["neutral", "happy", "sad", "calm"]).tolist()
    [0, 1, 2, 1]
    >>> polarity_ids(["happy", "proud"], {"proud": "positive"}).tolist()
    [0, 0]
    """
    numbers: dict[str, int] = {}
    places = _places(labels, WHEEL, polarity, "polarity", "positive")
    return torch.tensor([numbers.setdefault(place, len(numbers)) for place in places], dtype=torch.long)


def emotion_distances(labels: Sequence[str], coordinates: Mapping[str, Sequence[float]] | None = None) -> torch.Tensor:
    """Measure how far emotions are apart in the plane of valence and arousal, in parts of the largest distance.

    Arguments
    ---------
    labels : sequence of str
        Emotions, in the order of their class indices.
    coordinates : mapping of str to (float, float), optional
        Label to valence and arousal, in any unit that is the same for both, for labels that ``COORDINATES`` does not
        know or places otherwise; it goes before them.

    Returns
    -------
    torch.Tensor
        [C, C] float64, Euclidean, from 0 to 1; zeros where all labels have one place.

    Raises
    ------
    InputError
        A label has no coordinates, they are not two finite numbers, or they are given for what is not a label.

    Example
    -------
    >>> emotion_distances(["neutral", "calm", "bored"], {"calm": (0.6, -0.8), "bored": (-0.6, -0.8)})[0].tolist()
    [0.0, 0.8333333333333334, 0.8333333333333334]
    """
    places = _places(labels, COORDINATES, coordinates, "coordinates", "[0.5, -0.2]")
    for label, place in zip(labels, places, strict=True):
        if len(place) != 2 or not all(map(math.isfinite, place)):
            raise InputError(f"coordinates: {label!r} has {list(place)}; give its valence and arousal, two numbers")
    points = torch.tensor([list(place) for place in places], dtype=torch.float64).reshape(-1, 2)
    distances: torch.Tensor = (points[:, None] - points).norm(dim=-1)
    largest = float(distances.max()) if len(labels) else 0.0
    return distances / (largest or 1.0)


def are_names(labels: Labels) -> TypeGuard[Sequence[str]]:
    """True of names; a path or an encoder is read later, for a recipe fills it after it has made its losses."""
    return not isinstance(labels, str | os.PathLike) and not hasattr(labels, "ind2lab")


def label_names(labels: Labels) -> list[str]:
    """Read the names of the classes, in the order of their indices.

    Parameters
    ----------
    labels : sequence of str, path or encoder
        The names; or the path of a ``label_encoder.txt`` that SpeechBrain's ``CategoricalEncoder`` wrote; or such an
        encoder (``ind2lab``).

    Raises
    ------
    InputError
        If a label stands twice, there is no such file, or the indices are not 0, 1, 2 …

    Example
    -------
    >>> label_names(["happy", "sad"])
    ['happy', 'sad']
    """
    if isinstance(labels, str | os.PathLike):
        numbers = _read_encoder(Path(labels))
    elif hasattr(labels, "ind2lab"):
        numbers = dict(labels.ind2lab)
    else:
        numbers = dict(enumerate(labels))
    if sorted(numbers) != list(range(len(numbers))):
        raise InputError(f"labels have the indices {sorted(numbers)}; number them 0, 1, 2 and so on, each once")
    names = [str(numbers[index]) for index in range(len(numbers))]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise InputError(f"label {twice[0]!r} stands twice among {', '.join(names)}; give each once")
    return names


def _read_encoder(path: Path) -> dict[int, str]:
    """Read lines ``'happy' => 0``, up to a line of ``=`` signs."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n====", maxsplit=1)[0].splitlines()
        pairs = [line.rsplit(" => ", maxsplit=1) for line in lines if line.strip()]
        return {int(index): ast.literal_eval(label) for label, index in pairs}
    except OSError as error:
        raise InputError(f"labels: cannot read {path}; give label_encoder.txt of the recipe, or the names") from error
    except (ValueError, SyntaxError) as error:
        raise InputError(f"labels: {path} has no lines such as 'happy' => 0; give a CategoricalEncoder's") from error


def _places(
    labels: Sequence[str], known: Mapping[str, Place], given: Mapping[str, Place] | None, name: str, example: str
) -> list[Place]:
    """Look up the place of each label, a given one before a known one."""
    labels = label_names(list(labels))
    given = {str(label): place for label, place in (given or {}).items()}  # YAML takes some for numbers
    strangers = [label for label in given if label not in labels]
    if strangers:
        raise InputError(f"{name}: places {strangers[0]!r}, which is not a label; labels: {', '.join(labels)}")
    places = {**known, **given}
    unplaced = [label for label in labels if label not in places]
    if unplaced:
        raise InputError(f"emotion {unplaced[0]!r} has no {name}; give it, as `{name}: {{{unplaced[0]}: {example}}}`")
    return [places[label] for label in labels]
