"""Benchmarks: every script imports, and small cases run to their table."""

import json
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import torch
from torch import nn

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def path(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.mark.parametrize("script", sorted(BENCHMARKS.rglob("*.py")), ids=lambda path: path.stem)
def test_each_script_imports(script):
    spec = spec_from_file_location(f"benchmark_{script.stem}", script)
    spec.loader.exec_module(module_from_spec(spec))


def test_a_case_writes_its_rows_and_keeps_those_of_others(tmp_path, monkeypatch):
    run, harness, pooling = map(import_module, ("run", "speed.harness", "speed.pooling"))
    monkeypatch.setattr(pooling, "FRAMES", {"2 s": 13})
    monkeypatch.setattr(harness, "BUDGET", 0)
    monkeypatch.setattr(harness, "memory_rate", lambda: 1.0)
    monkeypatch.setattr(run, "keep_memory", lambda: None)
    monkeypatch.setattr("logging.disable", lambda level: None)
    monkeypatch.chdir(tmp_path)
    results = Path("benchmarks/results")
    results.mkdir(parents=True)
    row = {"case": "before", "ours": "1 s", "other": "3 s", "ratio": 3.0, "least": 2, "most": None}
    before = {"svm": {"machine": {"versions": {}}, "rows": [row]}}
    (results / "speed.json").write_text(json.dumps(before))
    threads = str(torch.get_num_threads())
    monkeypatch.setattr("sys.argv", ["run.py", "pooling", "--threads", threads, "--data_folder", "private"])
    run.main()
    found = json.loads((results / "speed.json").read_text())
    assert found["svm"] == before["svm"]
    (row,) = found["pooling"]["rows"]
    assert row["case"] == "GhostVLAD, batch 32 × 2 s" and row["ratio"] > 0
    assert found["pooling"]["machine"]["float32 ceiling, GFLOP/s"] > 0
    text = (results / "speed.md").read_text()
    assert "| before | 1 s | 3 s | 3.00 | ≥ 2 | met |" in text and f"| {row['case']} | {row['ours']} |" in text
    assert "--data_folder FOLDER" in text and "private" not in text


@pytest.fixture
def step(monkeypatch):
    """The case of training steps, on short clips, without its timings."""
    module = import_module("speed.step")
    for name, value in {"BATCH": 16, "SAMPLES": 2400, "ceiling": lambda dtype: 100.0}.items():
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(module, "alternate", lambda *functions: [float(1 + i) for i in range(len(functions))])
    return module


def test_training_steps_are_compared_with_those_of_others(step):
    rows = {row.case: row for row in step.run()}
    for other in ("plain NCHW, looped loss", "the network of earlier versions", "ECAPA-TDNN", "ResNet of SpeechBrain"):
        row = rows[f"training step against {other}"]
        assert row.ours.startswith("1e+03 ms, ")
        assert row.ours.endswith("GFLOP an utterance") and row.other.endswith("GFLOP an utterance")
    assert rows["training step against ECAPA-TDNN"].ratio == 5  # the fifth call: after ours, twice, and two others
    assert rows["forward pass against CAM++"].ratio == 2


def convolution_gflop(network, call):
    """GFLOP of a network's convolutions in a forward pass, by the shapes of their outputs."""
    counts = {}

    def count(layer, inputs, output):
        counts[layer] = 2 * output.numel() * layer.weight[0].numel() / 1e9

    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv1d | nn.Conv2d)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    call()
    for hook in hooks:
        hook.remove()
    assert len(counts) == len(layers)
    return list(counts.values())


def test_operations_are_those_of_the_convolutions(step):
    wavs, labels = torch.randn(16, 2400), torch.arange(16) % 8
    ours, other = step.Ours(), nn.Sequential(step.KaldiFbank(), step.MeanNorm(), step.CAMPPlus()).eval()
    with torch.no_grad():
        forward = sum(convolution_gflop(other, lambda: other(wavs)))
        assert step.operations(lambda: other(wavs)) == pytest.approx(forward, rel=0.02)
    stem, *rest = convolution_gflop(ours.encoder.backbone, lambda: ours(wavs, labels))
    backward = 2 * sum(rest) + stem  # of the stem's input there is no gradient
    found = step.operations(step.stepper(ours, wavs, labels))  # pooling and embedding layer come to the convolutions
    assert found == pytest.approx(stem + sum(rest) + backward, rel=0.05)
