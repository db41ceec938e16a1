"""How emotions relate: the polarity of each on Mikels' wheel, as the paper places them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from ser_plugins.errors import InputError

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
neutral stands in the centre, with zero valence and arousal, and so has a polarity of its own.
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
    given = dict(polarity or {})
    strangers = [label for label in given if label not in labels]
    if strangers:
        raise InputError(f"polarity: places {strangers[0]!r}, which is not a label; labels: {', '.join(labels)}")
    places = {**WHEEL, **given}
    unplaced = [label for label in labels if label not in places]
    if unplaced:
        raise InputError(f"emotion {unplaced[0]!r} is not on the wheel; give its place in the YAML, under `polarity:`")
    numbers: dict[str, int] = {}
    return torch.tensor([numbers.setdefault(places[label], len(numbers)) for label in labels], dtype=torch.long)
