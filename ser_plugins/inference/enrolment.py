"""Enrolment: a classifier adapted to one person by a few labelled clips."""

from __future__ import annotations

import copy
import glob
import logging
import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn
from torch.nn import functional

from ser_plugins.corpora.text import decode, read_csv
from ser_plugins.errors import InputError
from ser_plugins.inference.batches import select_labels
from ser_plugins.inference.speaker import normalizes_by_speaker, speaker_statistics
from ser_plugins.inference.utterances import embed
from ser_plugins.model_folder.checks import check_yaml
from ser_plugins.model_folder.layout import CHECKPOINT, CONFIG, HYPERPARAMS, WEIGHTS
from ser_plugins.model_folder.lineage import (
    ENROLMENT,
    LINEAGE,
    Training,
    file_sha256,
    read_lineage,
    speaker_keys,
    write_lineage,
)
from ser_plugins.model_folder.loading import load
from ser_plugins.model_folder.saving import save_model_folder
from ser_plugins.model_folder.source import find_folder
from ser_plugins.models.encoder import SoftmaxClassifier
from ser_plugins.models.logistic import LogisticClassifier
from ser_plugins.models.svm import examples

logger = logging.getLogger(__name__)
Linear: TypeAlias = SoftmaxClassifier | LogisticClassifier
STRENGTH = 0.01  # of 0.003 to 10 among the best on speakers of RAVDESS that were neither trained nor tested on


def read_labelled(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read labelled clips of one person: a CSV table with the columns ``path`` and ``emotion``.

    Returns
    -------
    pandas.DataFrame
        ``path``, where relative paths start from the folder of the table, ``emotion``, and ``speaker`` if it is there.

    Raises
    ------
    InputError
        If the table cannot be read, lacks a column, names a folder, or has a column ``speaker`` of several persons.
    """
    path = Path(path)
    try:
        text = decode(path.read_bytes(), str(path))
        table = read_csv(text, str(path), str).fillna("")
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); give a CSV table of labelled clips") from error
    except InputError:
        raise
    except ValueError as error:  # of pandas, also where there is no row
        raise InputError(
            f"{path} is no CSV table with a header ({' '.join(str(error).split())}); write it again"
        ) from error
    if missing := [name for name in ("path", "emotion") if name not in table]:
        raise InputError(f"{path} lacks the column(s) {', '.join(missing)}; it has {', '.join(map(str, table))}")
    if "speaker" in table and table["speaker"].nunique() > 1:
        raise InputError(f"{path} has clips of {table['speaker'].nunique()} speakers; enrol one person at a time")
    files = [path.parent / one for one in table["path"]]
    for row, (one, file) in enumerate(zip(table["path"], files, strict=True), start=1):
        if not one or file.is_dir() or (glob.has_magic(one) and not file.exists()):
            raise InputError(f"{path}: row {row} after the header names {one or 'nothing'}; give one sound file a row")
    return table[[name for name in ("speaker", "emotion") if name in table]].assign(path=[*map(str, files)])


def adapt_classifier(
    classifier: nn.Module, embeddings: ArrayLike, labels: ArrayLike, strength: float = STRENGTH
) -> nn.Module:
    """Adapt a linear classifier to labelled embeddings of one person.

    It minimises the sum of the cross-entropies plus ``strength`` / 2 times the squared distance to the weights of the
    given classifier: logistic regression with a Gaussian prior around these weights. Inputs are scaled to a mean
    square length of 1 first. Each emotion counts alike, however many clips it has. The cross-entropy is among the
    emotions with clips, so that the others keep their weights.

    Parameters
    ----------
    classifier : SoftmaxClassifier or LogisticClassifier
        The trained classifier; it stays as it is.
    embeddings : array-like
        [N, E]; without any, the result equals the classifier.
    labels : array-like
        Class indices [N].
    strength : float
        How closely to keep to the given weights, above 0.

    Returns
    -------
    torch.nn.Module
        The adapted classifier.

    Raises
    ------
    InputError
        If the classifier is not linear, a shape or a label is wrong, or ``strength`` is not above 0.

    Example
    -------
    >>> classifier = SoftmaxClassifier(4, 2)
    >>> clips = torch.eye(4)[:2]
    >>> adapt_classifier(classifier, clips, [0, 1], strength=0.1)(clips).argmax(-1).tolist()
    [0, 1]
    """
    if not strength > 0:
        raise InputError(f"strength must be above 0, not {strength}")
    weight, bias = _linear(classifier)
    inputs, targets = examples(torch.as_tensor(embeddings), torch.as_tensor(labels), len(bias))
    adapted = copy.deepcopy(classifier)
    if len(inputs):
        moved = _fit(_inputs(classifier, inputs), targets, weight.double(), bias.double(), strength)
        with torch.no_grad():
            for own, value in zip(_linear(adapted), moved, strict=True):
                own.copy_(value)
    return adapted


def _linear(classifier: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weight [C, D] and bias [C]."""
    if isinstance(classifier, SoftmaxClassifier):
        return classifier.linear.weight, classifier.linear.bias
    if isinstance(classifier, LogisticClassifier):
        return classifier.weight, classifier.bias
    raise InputError(
        f"{type(classifier).__name__} cannot be adapted; enrol on a model with SoftmaxClassifier or "
        "LogisticClassifier, as that of S6"
    )


def _inputs(classifier: nn.Module, embeddings: NDArray[np.float64]) -> torch.Tensor:
    """Return what the linear layer takes, [N, D] in float64."""
    given = torch.from_numpy(embeddings)
    if isinstance(classifier, LogisticClassifier):
        return (given - classifier.mean.cpu()) / classifier.scale.cpu()
    return torch.relu(given)


def _fit(
    inputs: torch.Tensor, targets: NDArray[np.int64], weight: torch.Tensor, bias: torch.Tensor, strength: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Minimise the penalised cross-entropy; return weight and bias."""
    from scipy.optimize import minimize  # noqa: PLC0415

    weight, bias = weight.detach().cpu(), bias.detach().cpu()
    size = inputs.square().sum(1).mean().sqrt().clamp(min=1e-12)
    scaled = torch.cat([inputs / size, torch.ones(len(inputs), 1)], 1)
    present, own, counts = np.unique(targets, return_inverse=True, return_counts=True)
    shares = torch.from_numpy(len(targets) / len(present) / counts[own])
    start = (inputs @ weight.T + bias)[:, present]
    expected = functional.one_hot(torch.from_numpy(own), len(present)).double()

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        change = torch.from_numpy(flat).view(len(present), -1)
        logs = (start + scaled @ change.T).log_softmax(1)
        value = -(shares * (logs * expected).sum(1)).sum() + strength / 2 * change.square().sum()
        slope = (shares[:, None] * (logs.exp() - expected)).T @ scaled + strength * change
        return float(value), slope.flatten().numpy()

    found = minimize(loss, np.zeros(len(present) * scaled.shape[1]), jac=True, method="L-BFGS-B")
    change = torch.from_numpy(found.x).view(len(present), -1)
    weight, bias = weight.clone(), bias.clone()
    weight[present] += change[:, :-1] / size
    bias[present] += change[:, -1]
    return weight, bias


def leave_one_out(classifier: nn.Module, embeddings: torch.Tensor, targets: Sequence[int]) -> int:
    """Count the clips that are recognised by a classifier that was adapted to all others."""
    right = 0
    for row, target in enumerate(targets):
        others = [i for i in range(len(targets)) if i != row]
        adapted = adapt_classifier(classifier, embeddings[others], [targets[i] for i in others])
        right += int(adapted(embeddings[row : row + 1]).argmax()) == target
    return right


@torch.no_grad()
def enrol(
    source: str | Path,
    labelled: str | os.PathLike[str],
    output: str | os.PathLike[str],
    revision: str | None = None,
    device: str | None = None,
) -> tuple[int, int, int]:
    r"""Adapt the classifier of a model to one person, and write the model folder.

    The encoder stays as it is. A model with speaker normalisation (S8) embeds the clips by their own statistics, and
    the written model needs ``speaker`` as well.

    Parameters
    ----------
    source : str or pathlib.Path
        Model folder, built-in name, or USER/NAME on the Hub.
    labelled : str or os.PathLike
        CSV table with the columns ``path`` and ``emotion``, of one person; see `read_labelled`.
    output : str or os.PathLike
        The model folder to write; there must be none. Its lineage records the person as a speaker.
    revision : str, optional
        Branch, tag or commit on the Hub.
    device : str, optional
        "cpu", "cuda", "cuda:1" …; by default a GPU if there is one.

    Returns
    -------
    tuple of int
        Number of clips, how many of them the model recognises, and how many an adaptation to all others recognises.

    Raises
    ------
    InputError
        If the classifier cannot be adapted, a clip cannot be read, an emotion is unknown, or the folder is there.

    Example
    -------
    >>> folder = getfixture("tiny_s8")
    >>> rows = "path,emotion\nclips/a.wav,happy\nclips/b.wav,sad\n"
    >>> _ = (folder / "ann.csv").write_text(rows)
    >>> enrol(folder / "model", folder / "ann.csv", getfixture("tmp_path") / "ann")[0]
    2
    """
    output = Path(output)
    if output.exists():
        raise InputError(f"{output} is there already; give another --output")
    folder = find_folder(source, [CONFIG, WEIGHTS, HYPERPARAMS, LINEAGE], revision)
    check_yaml(folder)
    model = load(folder, device=device)
    labels, _ = select_labels(model, None)
    classifier = copy.deepcopy(model.mods.classifier).cpu()
    _linear(classifier)
    table = read_labelled(labelled)
    if unknown := sorted(set(table["emotion"]) - set(labels)):
        raise InputError(f"{labelled}: the model has no emotion {unknown[0]!r}; it has {', '.join(labels)}")
    embeddings, targets = _embed(model, table), [labels.index(one) for one in table["emotion"]]
    if not len(table):
        logger.warning("%s has no clip; the classifier stays as it is", labelled)
    adapted = adapt_classifier(classifier, embeddings, targets)
    yaml = (folder / HYPERPARAMS).read_text(encoding="utf-8")
    save_model_folder(output, yaml, model.mods.embedding_model, adapted, labels)
    _record(output, folder, str(source), table)
    known = int((classifier(embeddings).argmax(-1) == torch.tensor(targets)).sum()) if len(table) else 0
    return len(table), known, leave_one_out(classifier, embeddings, targets)


def _embed(model: nn.Module, table: pd.DataFrame) -> torch.Tensor:
    """Embed the clips [N, E]; a clip that cannot be used is an error, for each of few counts."""
    paths = table["path"].tolist()
    if not paths:
        return torch.empty(0, 0)
    speaker = speaker_statistics(model, paths) if normalizes_by_speaker(model) else None
    found = embed(model, paths, speaker=speaker)
    if errors := found["error"].dropna().tolist():
        raise InputError(f"{errors[0]}; or leave the clip out")
    if len(found) < len(paths):
        raise InputError("a clip stands twice in the table; leave it out once")
    return torch.from_numpy(np.stack(found["embedding"].tolist()))


def _record(output: Path, folder: Path, source: str, table: pd.DataFrame) -> None:
    """Add the enrolment to the lineage of the model."""
    training = Training(
        run_id=uuid.uuid4().hex,
        strategy=ENROLMENT,
        corpus="table",
        fold=None,
        seed=0,
        sha256=file_sha256(output / CHECKPOINT),
        start=source,
        utterances=len(table),
        speakers=speaker_keys(f"table-{one}" for one in table["speaker"].unique() if one) if "speaker" in table else (),
    )
    write_lineage(output, [*read_lineage(folder / CHECKPOINT), training])
