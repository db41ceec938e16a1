"""The model card: description, results, training, data and licence, and limits of a model."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import yaml
from huggingface_hub import EvalResult, ModelCardData

from ser_plugins.evaluation.results import read_runs
from ser_plugins.evaluation.tables import MEASURES
from ser_plugins.model_folder.description import KEYS
from ser_plugins.model_folder.lineage import OWN_SPEAKERS, RANDOM, History, history, hyperparameter
from ser_plugins.model_folder.loading import read_config
from ser_plugins.model_folder.saving import CONFIG

TEMPLATE = Path(__file__).with_name("card.md")
FIGURE = "confusion.png"
Metrics = Mapping[str, Any]


@dataclass(frozen=True)
class Source:
    """A training corpus: its name, a description, its licence, and the licence's identifier on the Hub."""

    name: str
    about: str
    licence: str
    identifier: str
    acted: bool = False

    def __str__(self) -> str:
        return f"{self.name}, {self.licence}: {self.about}"


SOURCES = {
    "ravdess": Source(
        "RAVDESS",
        "24 actors who speak two sentences; S. R. Livingstone and F. A. Russo, "
        "[PLoS ONE 2018](https://doi.org/10.1371/journal.pone.0196391), https://zenodo.org/records/1188976",
        "[CC BY-NC-SA 4.0](https://creativecommons.org/licenses/by-nc-sa/4.0/), **not for commercial use**",
        "cc-by-nc-sa-4.0",
        acted=True,
    ),
    "cremad": Source(
        "CREMA-D",
        "91 actors who speak twelve sentences; H. Cao and others, "
        "[IEEE Transactions on Affective Computing 2014](https://doi.org/10.1109/TAFFC.2014.2336244), "
        "https://github.com/CheyneyComputerScience/CREMA-D",
        "[ODbL 1.0](https://opendatacommons.org/licenses/odbl/1-0/)",
        "odbl",
        acted=True,
    ),
}
SYNTHETIC = Source("The built-in corpus of ser-plugins", "audio made by a program", "Apache-2.0", "apache-2.0")
NON_COMMERCIAL = (
    "**The weights are not for commercial use.** They were trained on RAVDESS and have its licence, "
    "CC BY-NC-SA 4.0: give credit, and share what you derive from them under the same licence."
)
UNKNOWN = (
    "The licence of some of the data is unknown, and so are the terms of the weights: "
    "ask who published the model before you use it."
)


def model_card(folder: Path, repo_id: str, size: int, revision: str | None = None) -> str:
    """Write the card of a model folder; all its numbers come from the folder and its run.

    Parameters
    ----------
    folder : pathlib.Path
        ``model/`` or ``encoder/``, with the ``metrics.json`` of its run beside it and the other folds beside that.
    repo_id : str
        USER/NAME on the Hub.
    size : int
        Size of an embedding.
    revision : str, optional
        Branch on the Hub.

    Returns
    -------
    str
        The card as Markdown with its front matter.
    """
    folder = folder.resolve()
    config = read_config(folder / CONFIG)
    past = history_of(folder, config["labels"])
    runs, start = [run.metrics for run in past.runs], initial_weights(past)
    metrics = runs[0] if runs else None
    speakers = "eer" in metrics if metrics else folder.name == "encoder"
    known, sources = data_sources(runs, start)
    identifier, licence = licence_of(known, complete=len(known) == len(sources))
    results = emotion_results(folder, metrics, runs, start) if metrics and not speakers else {}
    name = repo_id.split("/")[1]
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters["percent"] = lambda value: f"{100 * value:.1f}"
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        metadata=metadata(name, identifier, speakers, runs, results).to_yaml(),
        title=name,
        repo_id=repo_id,
        revision=revision or "main",
        speakers=speakers,
        by_speaker=_by_speaker(config["modules"]),
        synthetic=bool(metrics and metrics["synthetic"]),
        acted=any(source.acted for source in known),
        english=_english(runs),
        labels=[_cell(label) for label in config["labels"]],
        size=size,
        metrics=metrics,
        **results,
        stages=[*([start] if start else []), *map(_stage, reversed(runs))] or ["The training is unknown."],
        parts=[(name, _expression(part)) for name, part in config["modules"].items()],
        run=_run(metrics) if metrics else "",
        sources=sources or ["The data are unknown."],
        licence=licence,
    )


def metadata(
    name: str, licence: str, speakers: bool, runs: Sequence[Metrics], results: Mapping[str, Any]
) -> ModelCardData:
    """Return the front matter, with the results in the form that the Hub reads."""
    task = ["speaker-recognition"] if speakers else ["audio-classification", "speech-emotion-recognition"]
    synthetic = ["synthetic"] if runs and runs[0]["synthetic"] else []
    return ModelCardData(
        language="en" if _english(runs) else None,
        license=licence,
        library_name="speechbrain",
        pipeline_tag=None if speakers else "audio-classification",
        tags=["speechbrain", "ser-plugins", "embeddings", *task, *synthetic],
        datasets=sorted({corpus for run in runs for corpus in _corpora(run)} & set(SOURCES)) or None,
        metrics=None if not runs else ["eer", "accuracy"] if speakers else ["accuracy", "recall", "f1"],
        model_name=name,
        eval_results=(_verification(runs[0]) if speakers else _recognition(results)) if runs else None,
    )


def emotion_results(folder: Path, metrics: Metrics, runs: Sequence[Metrics], start: str) -> dict[str, Any]:
    """Collect the results of an emotion classifier for the template."""
    n_folds = hyperparameter(folder.parent, "n_folds")
    siblings = [run.metrics for run in read_runs(folder.parents[1])]
    siblings = siblings if metrics in siblings else []
    means = [statistics.mean(one[name] for one in siblings) for name in MEASURES] if siblings else []
    parts = [{"corpus": name, **one} for name, one in metrics.get("corpora", {}).items()]
    earlier = {corpus for run in runs[1:] for corpus in _corpora(run)}
    return {
        "rows": [{**row, "name": _title(row["corpus"], metrics["synthetic"])} for row in (*parts, metrics)],
        "split": f"test speakers of fold {metrics['fold']}{f' of {n_folds}' if n_folds else ''}",
        "n_folds": n_folds,
        # An earlier stage may have been trained on test speakers of the last one.
        "unseen_speakers": not start.startswith("Weights") and not earlier & set(_corpora(metrics)),
        "siblings": siblings,
        "means": means,
        "points": 100 * (metrics["accuracy"] - means[0]) if means else 0,
        "measures": MEASURES,
        "confusion": list(zip(map(_cell, metrics["labels"]), metrics["confusion"], strict=True)),
        "figure": (folder.parent / FIGURE).is_file(),
    }


def history_of(folder: Path, labels: Sequence[Any]) -> History:
    """Return the runs that led to a model, or none if the run beside it has other labels."""
    past = history(folder)
    last = past.runs[0].metrics if past.runs else {}
    same = last.get("labels", labels) == labels and last.get("speakers", len(labels)) == len(labels)
    return past if same else History([], "", folder)


def initial_weights(known: History) -> str:
    """Describe the initial weights of the first of the runs that led to a model, in a sentence."""
    if not known.runs:
        return ""
    if known.start == RANDOM:
        return "Random weights."
    if known.start == OWN_SPEAKERS:
        return "From random weights, the network was pre-trained on the speakers of the training part."
    note = known.folder / "source.yaml"  # written by recipes/convert.py
    if note.is_file():
        about = yaml.safe_load(note.read_text(encoding="utf-8"))
        return f"Weights of {about['source']}, by {about['authors']}; licence: {about['licence']}."
    outside = Path(known.start).is_absolute() or ".." in Path(known.start).parts
    name = "an encoder" if outside else f"the encoder `{known.start}`"
    return f"Weights of {name}, of which nothing else is known."


def data_sources(runs: Sequence[Metrics], start: str) -> tuple[list[Source], list[Source | str]]:
    """Return the known corpora of some runs, and a line for each corpus and for unknown initial weights."""
    found: dict[str, Source | str] = {}
    for run in runs:
        for name in _corpora(run):
            found[name] = SOURCES.get(name) or (SYNTHETIC if run["synthetic"] else _other(name, run))
    if start.startswith("Weights"):
        found[start] = f"Training data of the initial weights: {start[0].lower()}{start[1:]}"
    return [source for source in found.values() if isinstance(source, Source)], list(found.values())


def licence_of(known: Sequence[Source], complete: bool) -> tuple[str, str]:
    """Return the licence of the weights: its identifier on the Hub, and a sentence."""
    identifiers = {source.identifier for source in known}
    if "cc-by-nc-sa-4.0" in identifiers:
        return "cc-by-nc-sa-4.0", NON_COMMERCIAL if complete else f"{NON_COMMERCIAL} {UNKNOWN}"
    if not known or not complete:
        return "unknown", UNKNOWN
    if "odbl" in identifiers:
        return "odbl", "The weights have the licence of CREMA-D, ODbL 1.0."
    return "apache-2.0", "The weights have the licence of ser-plugins, Apache-2.0."


def _other(name: str, run: Metrics) -> str:
    """Describe a corpus that is not in `SOURCES` by the licence in the metrics."""
    licence = run.get("licence", "unknown") if name == run["corpus"] else "unknown"
    return f"`{name}`: licence {licence}"


def _corpora(run: Metrics) -> list[str]:
    return list(run.get("corpora", {})) or str(run["corpus"]).split("+")


def _title(corpus: str, synthetic: bool) -> str:
    return f"{corpus} (synthetic audio)" if synthetic else SOURCES[corpus].name if corpus in SOURCES else corpus


def _cell(label: Any) -> str:
    """Escape a label for a cell of a table."""
    return str(label).replace("|", r"\|")


def _by_speaker(modules: Mapping[str, Any]) -> bool:
    """Return whether spectrograms or embeddings are normalised by speaker."""
    given = [modules[name]["arguments"] for name in ("mean_var_norm", "embedding_model")]
    named = [one for one in given if isinstance(one, Mapping)]
    old = any(one.get("axis") == "speaker" or one.get("speaker_centred") for one in named)  # of earlier versions
    return old or any(one.get("speaker_normalization", "none") != "none" for one in named)


def _english(runs: Sequence[Metrics]) -> bool:
    """Return whether all training speech is known to be English."""
    return bool(runs) and all(corpus in SOURCES for run in runs for corpus in _corpora(run))


def _recognition(results: Mapping[str, Any]) -> list[EvalResult]:
    task, split = ("audio-classification", "Speech emotion recognition"), results["split"]
    kinds = {"accuracy": ("accuracy", "Accuracy"), "uar": ("recall", "Unweighted average recall")}
    kinds["macro_f1"] = ("f1", "Macro F1")
    return [
        _result(task, row["name"], split, kind, row[name]) for row in results["rows"] for name, kind in kinds.items()
    ]


def _verification(metrics: Metrics) -> list[EvalResult]:
    task, kind = ("speaker-verification", "Speaker verification"), ("eer", "Equal error rate")
    corpus = _title(metrics["corpus"], metrics["synthetic"])
    return [_result(task, corpus, "pairs of held-out speakers", kind, metrics["eer"])]


def _result(task: tuple[str, str], corpus: str, split: str, kind: tuple[str, str], value: float) -> EvalResult:
    """Make a result; ``task`` and ``kind`` are pairs of the Hub's identifier and a name."""
    return EvalResult(
        task_type=task[0],
        task_name=task[1],
        dataset_type=corpus.lower(),
        dataset_name=corpus,
        dataset_split=split,
        metric_type=kind[0],
        metric_name=kind[1],
        metric_value=value,
    )


def _stage(run: Metrics) -> str:
    where = _title(run["corpus"], run["synthetic"])
    if "eer" in run:
        return f"Speaker identification on {where}: {run['n_train']} utterances of {run['speakers']} speakers."
    how = f"strategy {run['strategy']} of ser-plugins"
    return f"Emotions on {where}: {how}, {run['n_train']} utterances, fold {run['fold']}."


def _run(metrics: Metrics) -> str:
    """Describe the last stage: best epoch, seed, commit and versions."""
    versions = ", ".join(f"{name} {number}" for name, number in metrics["versions"].items())
    best = f"Epoch {metrics['best_epoch']} of {metrics['epochs']} was best on the validation part"
    commit = f"; commit {metrics['commit']} of ser-plugins" if metrics.get("commit") else ""
    return f"{best}; seed {metrics['seed']}{commit}; {versions}."


def _expression(description: Any) -> str:
    """Write the plain JSON of `describe` as a Python expression.

    Example
    -------
    >>> _expression({"class": "ser_plugins.GhostVLAD", "arguments": {"input_size": 8, "clusters": 4}})
    'GhostVLAD(input_size=8, clusters=4)'
    """
    if isinstance(description, Mapping) and set(description) == KEYS:
        arguments = description["arguments"]
        if isinstance(arguments, Mapping):
            inside = [f"{key}={_expression(value)}" for key, value in arguments.items()]
        else:
            inside = [_expression(value) for value in arguments]
        return f"{description['class'].rsplit('.', 1)[-1]}({', '.join(inside)})"
    if isinstance(description, Mapping):  # the configuration of a self-supervised network, too long for the card
        return f"{{{len(description)} settings, see {CONFIG}}}"
    if isinstance(description, list):
        return f"[{', '.join(map(_expression, description))}]"
    return repr(description)
