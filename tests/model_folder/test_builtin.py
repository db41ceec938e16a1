"""The encoder that the package holds: its size, its loading, and fine-tuning from it."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch

from ser_plugins import configuration, load
from ser_plugins.errors import InputError
from ser_plugins.evaluation.calibration import probability_measures, probability_sums
from ser_plugins.evaluation.intervals import accuracy_interval
from ser_plugins.evaluation.results import read_runs
from ser_plugins.inference.onnx_model import open_graph
from ser_plugins.model_folder.config import checksum_of, read_config
from ser_plugins.model_folder.layout import GRAPH
from ser_plugins.model_folder.lineage import read_lineage, speaker_keys
from ser_plugins.model_folder.saving import CONFIG
from ser_plugins.model_folder.source import builtin_folder
from ser_plugins.training.run import load_pretrained
from ser_plugins.training.transfer import find_weights

RECORDS = Path(__file__).parents[2] / "results_records"
EMOTION_MODELS = {"emotions": 16_000_000, "emotions-small": 6_000_000}  # bytes at most


def test_it_is_small_and_says_where_it_is_from():
    folder = builtin_folder("builtin:speakers")
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 6_000_000
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "Apache-2.0" in card and "CC BY 4.0" in card and "Equal error rate" in card
    assert [one.strategy for one in read_lineage(find_weights("builtin"))][-1] == "distil"


def test_its_card_has_the_figures_of_the_records():
    folder = builtin_folder("builtin:speakers")
    card = (folder / "README.md").read_text(encoding="utf-8")
    curve = pd.read_csv(RECORDS / "distillation/curve.csv").iloc[-1]
    for record in ("Probe-builtin", "Probe"):  # of the encoder, and of its teacher
        runs = read_runs(RECORDS / record / "ravdess/1")
        mean = 100 * sum(run.metrics["accuracy"] for run in runs) / len(runs)
        assert len(runs) == 10 and f"{mean:.1f} %" in card
    assert f"{curve['eer']} %" in card and f"{curve['crops']:.0f} crops" in card


def test_it_embeds_without_a_network():
    model = load("builtin:speakers", device="cpu")
    wavs = 0.1 * torch.randn(2, 16000, generator=torch.Generator().manual_seed(0))
    embeddings = model.encode_batch(wavs)
    assert embeddings.shape == (2, 1, 512) and embeddings.isfinite().all()


@pytest.mark.parametrize(("strategy", "partial"), [("s2", 2), ("s3", 0), ("s6", 0)])
def test_a_strategy_starts_from_it_by_default(strategy, partial):
    tree = configuration.compose(strategy, "ravdess")
    encoder = configuration.build({"embedding_model": configuration.resolve(tree)["embedding_model"]})[
        "embedding_model"
    ]
    lineage, report = load_pretrained(encoder, tree)
    assert lineage and len(report["matched"]) > 200 and len(report["partial"]) == partial
    assert not report["missing"] + report["shape"] + report["unexpected"]


def test_the_graph_of_the_default_model_computes_what_the_model_does():
    folder, model = builtin_folder("builtin:emotions"), load("builtin:emotions", device="cpu")
    assert open_graph(str(folder)) is not None
    generator = torch.Generator().manual_seed(0)
    wavs, lengths = 0.1 * torch.randn(2, 40000, generator=generator), torch.tensor([1.0, 0.6])
    wavs[1, 24000:] = 0
    inputs = {"waveforms": wavs.numpy(), "lengths": lengths.numpy()}
    embeddings, scores = onnxruntime.InferenceSession(folder / GRAPH).run(None, inputs)
    np.testing.assert_allclose(embeddings, model.encode_batch(wavs, lengths), atol=1e-4)
    np.testing.assert_allclose(scores, model.classify_batch(wavs, lengths)[0], atol=1e-4)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(InputError, match=r"no built-in model 'voices'; the package holds .*speakers"):
        find_weights("builtin:voices")


@pytest.mark.parametrize("model", EMOTION_MODELS)
def test_an_emotion_model_is_small_and_its_card_has_the_figures_of_its_records(model):
    folder = builtin_folder(f"builtin:{model}")
    assert sum(file.stat().st_size for file in folder.iterdir()) <= EMOTION_MODELS[model]
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "Apache-2.0" in card and "Open Database License" in card
    for name, title in (("cremad", "CREMA-D"), ("ravdess", "RAVDESS")):
        table = pd.read_csv(RECORDS / f"models/{model}/{name}.csv.gz", dtype={"speaker": str})
        right = table["emotion"] == table["predicted"]
        recalls = right.groupby(table["emotion"]).mean()
        low, high = (100 * end for end in accuracy_interval([table]))
        figures = f"{100 * right.mean():.1f} % | {low:.1f}–{high:.1f} % | {100 * recalls.mean():.1f} %"
        assert f"| {table['speaker'].nunique()} | {len(table)} | {figures} |" in card
        assert f"| {title} | {' | '.join(f'{100 * value:.0f}' for value in recalls)} |" in card
        labels = list(recalls.index)
        true, predicted = (pd.Index(labels).get_indexer(table[key]) for key in ("emotion", "predicted"))
        sums = probability_sums(table[labels].to_numpy(), true, predicted, np.zeros(len(table), int))
        assert f"{100 * float(probability_measures(sums[0])['ece']):.1f} % on {title}" in card
        heard = read_lineage(folder / "model.safetensors")[-1].speakers
        assert not set(speaker_keys(f"{name}-{one}" for one in table["speaker"])) & set(heard)


@pytest.mark.parametrize("model", EMOTION_MODELS)
def test_the_card_of_an_emotion_model_has_its_result_under_distortions(model):
    folder = builtin_folder(f"builtin:{model}")
    result = json.loads((RECORDS / f"models/{model}/stress.json").read_text(encoding="utf-8"))
    assert result["models"] == [checksum_of(read_config(folder / CONFIG))]
    card = (folder / "README.md").read_text(encoding="utf-8")
    for row in result["stress"]:
        cells = [
            "{value:.1f} [{low:.1f}, {high:.1f}]".format(**{key: 100 * row[name][key] for key in row[name]})
            for name in ("accuracy", "changed")
        ]
        assert f"| {row['distortion']} | {' | '.join(cells)} |" in card
    lost = [
        result["stress"][0]["accuracy"]["value"] - row["accuracy"]["value"]
        for row in result["stress"]
        if row["distortion"].startswith(("white", "babble", "telephone", "reverb", "first"))
    ]
    assert f"cost {100 * min(lost):.0f} to {100 * max(lost):.0f} points" in card


def test_the_emotion_model_answers_by_default():
    model = load(device="cpu")
    scores, _, _, [emotion] = model.classify_batch(0.1 * torch.randn(1, 16000))
    assert scores.shape == (1, 6) and emotion in {"neutral", "happy", "sad", "angry", "fearful", "disgust"}
    assert torch.allclose(scores.exp().sum(), torch.tensor(1.0))
