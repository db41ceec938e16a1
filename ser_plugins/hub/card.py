"""The model card: description, results, training, data and licence, and limits of a model."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub import EvalResult, ModelCardData

from ser_plugins import configuration
from ser_plugins.errors import InputError
from ser_plugins.evaluation.page import stress_table
from ser_plugins.evaluation.results import METRICS, read_metrics, read_runs
from ser_plugins.evaluation.tables import MEASURES
from ser_plugins.model_folder.config import checksum_of, read_config
from ser_plugins.model_folder.description import KEYS
from ser_plugins.model_folder.lineage import NO_PRETRAINING, OWN_SPEAKERS, Lineage, Training, read_lineage
from ser_plugins.model_folder.saving import CHECKPOINT, CONFIG, HYPERPARAMS

TEMPLATE = Path(__file__).with_name("card.md")
FIGURE = "confusion.png"
STRESS = "stress.json"  # of ser-plugins evaluate --model FOLDER --stress --json FOLDER/stress.json
STRESS_REMEDY = "write it again by ser-plugins evaluate --model FOLDER --stress --json FOLDER/stress.json"
DISTILLATION = "distil"  # the strategy of hparams/distil.yaml
Metrics = Mapping[str, Any]


@dataclass(frozen=True)
class Source:
    """A training corpus: its name, a description, its licence, and the licence's identifier on the Hub, or "other"."""

    name: str
    about: str
    licence: str
    identifier: str
    acted: bool = False

    def __str__(self) -> str:
        return f"{self.name}, {self.licence}: {self.about}" if self.about else f"{self.name}: licence {self.licence}"


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
OTHER = "The weights have the terms of all the data above."


def model_card(folder: Path, repo_id: str, size: int, revision: str | None = None) -> str:
    """Write the card of a model folder; all its numbers come from the folder and its run.

    Parameters
    ----------
    folder : pathlib.Path
        ``model/`` or ``encoder/``, next to the ``metrics.json`` of its run. The folders of the other folds are next to
        that of the run.
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
    metrics = own_metrics(folder, config["labels"])
    lineage = own_lineage(folder, metrics)
    speakers = "eer" in metrics if metrics else folder.name == "encoder"
    sources = data_sources(lineage)
    identifier, licence = licence_of(sources, complete=bool(sources) and not _unknown_start(lineage))
    results = emotion_results(folder, metrics, lineage) if metrics and not speakers else {}
    name = repo_id.split("/")[1]
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters["percent"] = lambda value: f"{100 * value:.1f}"
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        metadata=metadata(name, identifier, speakers, lineage, metrics, results).to_yaml(),
        title=name,
        repo_id=repo_id,
        revision=revision or "main",
        speakers=speakers,
        by_speaker=_by_speaker(config["modules"]),
        synthetic=bool(metrics and metrics["synthetic"]),
        acted=any(source.acted for source in sources),
        english=_english(lineage),
        labels=[_cell(label) for label in config["labels"]],
        size=size,
        metrics=metrics,
        **results,
        stages=stages(lineage, metrics),
        parts=[(name, _expression(part)) for name, part in config["modules"].items()],
        run=_run(metrics) if metrics else "",
        **stress_results(folder / STRESS, checksum_of(config)),
        sources=[*sources, *_unknown_data(lineage)],
        licence=licence,
    )


def metadata(
    name: str,
    licence: str,
    speakers: bool,
    lineage: Lineage,
    metrics: Metrics | None,
    results: Mapping[str, Any],
) -> ModelCardData:
    """Return the front matter, with the results in the form that the Hub reads."""
    task = ["speaker-recognition"] if speakers else ["audio-classification", "speech-emotion-recognition"]
    synthetic = ["synthetic"] if metrics and metrics["synthetic"] else []
    evaluated = None if metrics is None else _verification(metrics) if speakers else _recognition(results)
    return ModelCardData(
        language="en" if _english(lineage) else None,
        license=licence,
        library_name="speechbrain",
        pipeline_tag=None if speakers else "audio-classification",
        tags=["speechbrain", "ser-plugins", "embeddings", *task, *synthetic],
        datasets=sorted({corpus for training in lineage for corpus in _corpora(training)} & set(SOURCES)) or None,
        metrics=None if metrics is None else ["eer", "accuracy"] if speakers else ["accuracy", "recall", "f1"],
        model_name=name,
        eval_results=evaluated,
    )


def emotion_results(folder: Path, metrics: Metrics, lineage: Lineage) -> dict[str, Any]:
    """Collect the results of an emotion classifier for the template."""
    n_folds = _hyperparameters(folder.parent).get("n_folds")
    siblings = [run.metrics for run in read_runs(folder.parents[1])]
    siblings = siblings if metrics in siblings else []
    means = [statistics.mean(one[name] for one in siblings) for name in MEASURES] if siblings else []
    parts = [{"corpus": name, **one} for name, one in metrics.get("corpora", {}).items()]
    own = set(_corpora(lineage[-1]))
    return {
        "rows": [{**row, "name": _title(row["corpus"], metrics["synthetic"])} for row in (*parts, metrics)],
        "split": f"test speakers of fold {metrics['fold']}{f' of {n_folds}' if n_folds else ''}",
        "n_folds": n_folds,
        # A training refuses an encoder that records a speaker of its test part; others record none.
        "unseen_speakers": not _unknown_start(lineage)
        and all(earlier.speakers or not own & set(_corpora(earlier)) for earlier in lineage[:-1]),
        "siblings": siblings,
        "means": means,
        "points": 100 * (metrics["accuracy"] - means[0]) if means else 0,
        "measures": MEASURES,
        "confusion": list(zip(map(_cell, metrics["labels"]), metrics["confusion"], strict=True)),
        "figure": (folder.parent / FIGURE).is_file(),
    }


def stress_results(file: Path, checksum: str) -> dict[str, Any]:
    """Read the result of the distortions for the template: ``stress``, None where the model was not tested on them.

    Raises
    ------
    InputError
        If the file is of another model, or no such result.
    """
    if not file.is_file():
        return {"stress": None}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        rows = stress_table(found["stress"]).to_dict("split")
        about = f"{found['utterances']} utterances of {found['speakers']} speakers of {_title(found['corpus'], False)}"
        models = found["models"]
    except (OSError, ValueError, TypeError, KeyError, IndexError) as error:
        raise InputError(f"{file} is no result of --stress; {STRESS_REMEDY}") from error
    if models != [checksum]:
        raise InputError(f"{file} is of another model; {STRESS_REMEDY}")
    return {"stress": {"columns": rows["columns"], "rows": rows["data"], "about": about}}


def own_metrics(folder: Path, labels: Sequence[Any]) -> Metrics | None:
    """Read the ``metrics.json`` next to a model folder; None if there is none, or its run has other labels."""
    if not (folder.parent / METRICS).is_file():
        return None
    metrics = read_metrics(folder.parent)
    same = metrics.get("labels", labels) == labels and metrics.get("speakers", len(labels)) == len(labels)
    return metrics if same else None


def own_lineage(folder: Path, metrics: Metrics | None) -> Lineage:
    """Read the lineage of a model folder; a folder of earlier versions has the last training only, by its metrics."""
    recorded = read_lineage(folder / CHECKPOINT)
    if recorded or metrics is None:
        return recorded
    return (
        Training(
            run_id="",
            strategy=metrics.get("strategy", "pretrain"),
            corpus="+".join(metrics.get("corpora", {})) or metrics["corpus"],
            fold=metrics.get("fold"),
            seed=metrics["seed"],
            sha256="",
            start=metrics.get("pretrained_encoder") or NO_PRETRAINING,
            licence=metrics.get("licence", "unknown"),
            synthetic=metrics["synthetic"],
        ),
    )


def stages(lineage: Lineage, metrics: Metrics | None) -> list[str]:
    """Describe the initial weights and each training of a lineage, a sentence each."""
    if not lineage:
        return ["The training is unknown."]
    start = _unknown_start(lineage)
    if lineage[0].start == OWN_SPEAKERS:
        first = "From random weights, the network was pre-trained on the speakers of the training part."
    else:
        first = f"Weights of {start}, of which nothing else is known." if start else "Random weights."
    last = [_stage(metrics)] if metrics else [_training(lineage[-1])]
    return [first, *map(_training, lineage[:-1]), *last]


def data_sources(lineage: Lineage) -> list[Source]:
    """Return the corpora of a lineage; those of a training that the card does not know are one source."""
    found: dict[str, Source] = {}
    for training in lineage:
        others = [name for name in _corpora(training) if name not in SOURCES]
        found |= {name: SOURCES[name] for name in _corpora(training) if name in SOURCES}
        if others:
            found[", ".join(others)] = SYNTHETIC if training.synthetic else _other_source(training, others)
    return list(found.values())


def licence_of(sources: Sequence[Source], complete: bool) -> tuple[str, str]:
    """Return the licence of the weights: its identifier on the Hub, and a sentence.

    ``complete`` is False where some of the data are unknown.
    """
    identifiers = {source.identifier for source in sources} | (set() if complete else {"unknown"})
    if "cc-by-nc-sa-4.0" in identifiers:
        return "cc-by-nc-sa-4.0", f"{NON_COMMERCIAL} {UNKNOWN}" if "unknown" in identifiers else NON_COMMERCIAL
    if "unknown" in identifiers:
        return "unknown", UNKNOWN
    if "odbl" in identifiers:
        return "odbl", "The weights have the licence of CREMA-D, ODbL 1.0."
    if "other" in identifiers:
        return "other", OTHER
    return "apache-2.0", "The weights have the licence of ser-plugins, Apache-2.0."


def _other_source(training: Training, names: Sequence[str]) -> Source:
    """Return the source of corpora that only their training describes.

    The licence of a training is of all its corpora, so it says nothing of some of them.
    """
    licence = training.licence if len(names) == len(_corpora(training)) else "unknown"
    listed = ", ".join(f"`{name}`" for name in names)
    return Source(listed, "", licence, "unknown" if "unknown" in licence else "other")


def _unknown_data(lineage: Lineage) -> list[str]:
    """Return a line of what is not known of the data."""
    start = _unknown_start(lineage)
    return [f"The training data of {start} are unknown."] if start else [] if lineage else ["The data are unknown."]


def _corpora(training: Training) -> list[str]:
    return training.corpus.split("+")


def _unknown_start(lineage: Lineage) -> str:
    """Name the initial weights of a lineage, if their origin is unknown; no path of this machine."""
    if not lineage or lineage[0].start in {NO_PRETRAINING, OWN_SPEAKERS}:
        return ""
    path = Path(lineage[0].start)
    return "an encoder" if path.is_absolute() or ".." in path.parts else f"the encoder `{path}`"


def _hyperparameters(run: Path) -> Mapping[str, Any]:
    file = run / HYPERPARAMS
    return configuration.read(file) if file.is_file() else {}


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


def _english(lineage: Lineage) -> bool:
    """Return whether all training speech is known to be English."""
    return bool(lineage) and all(corpus in SOURCES for training in lineage for corpus in _corpora(training))


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


def _training(training: Training) -> str:
    """Describe an earlier training by its record."""
    where = " and ".join(_title(corpus, training.synthetic) for corpus in _corpora(training))
    if training.fold is None:
        kind = "Distillation" if training.strategy == DISTILLATION else "Pre-training"
        return f"{kind} on {where}: {training.strategy}."
    return f"Emotions on {where}: strategy {training.strategy} of ser-plugins, fold {training.fold}."


def _stage(run: Metrics) -> str:
    """Describe the last training by its metrics."""
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
