"""The blocks of docs/swapping.md in SpeechBrain's recipes, as the page has them."""

import math
import os
import re
import runpy
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest
import torch
from torch.jit.frontend import NotSupportedError

from ser_plugins import TripletLoss, UtteranceEncoder
from ser_plugins.models.batchnorm import MaskedBatchNorm

HERE = Path(__file__).parent
PAGE = (HERE.parents[1] / "docs" / "swapping.md").read_text(encoding="utf-8")
YAML = {block.split("\n", 1)[0][2:]: block for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)}
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
NETWORKS = [title for title in YAML if title.endswith("network")]


@pytest.fixture(scope="module")
def recipe():
    return runpy.run_path(str(HERE / "recipe.py"))


@pytest.fixture
def make(recipe, tmp_path, monkeypatch):
    """A Brain of a recipe with a block of the page, by its title."""
    (tmp_path / "frames.py").write_text(next(block for block in PYTHON if "class Frames" in block))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "frames", raising=False)

    def prepare(title, options=None, **changes):
        name = title.split(":")[0].lower()
        # A folder each: SpeechBrain takes up what it finds.
        return recipe["prepare"](name, YAML.get(title, ""), tmp_path / str(next(numbers)), options, **changes)

    numbers = count()
    return prepare


def test_the_page_has_each_block_once():
    assert len(YAML) == PAGE.count("```yaml") == 7
    assert {title.split(":")[0] for title in YAML} == {"VoxCeleb", "IEMOCAP"}


@pytest.mark.parametrize("title", ["VoxCeleb: as it is", "IEMOCAP: as it is", *YAML])
def test_a_recipe_learns(make, recipe, title):
    swapped = "embedding_model" in YAML.get(title, "")
    brain = recipe["train"](make(title, number_of_epochs=3 if swapped else 12))
    assert all(map(math.isfinite, brain.losses)) and brain.losses[-1] < brain.losses[0]
    assert 0 <= brain.error <= 1
    assert isinstance(brain.modules.embedding_model, UtteranceEncoder) == swapped


@pytest.mark.parametrize("title", [*NETWORKS, "VoxCeleb: GhostVLAD after ECAPA"])
@torch.no_grad()
def test_embeddings_have_the_shape_that_the_classifier_wants(make, title):
    brain = make(title)
    size = 96 if title.startswith("IEMOCAP") else 192
    brain.modules.eval()
    feats = brain.modules.compute_features(torch.randn(2, 4000))
    feats = brain.modules.mean_var_norm(feats, torch.ones(2))
    assert brain.modules.embedding_model(feats).shape == (2, 1, size)
    assert brain.modules.classifier(brain.modules.embedding_model(feats, torch.ones(2))).shape == (2, 1, 4)


@pytest.mark.parametrize("title", ["VoxCeleb: spectrogram and network", "IEMOCAP: spectrogram and network"])
@torch.no_grad()
def test_padding_changes_no_embedding(make, title):
    """With the lengths, as IEMOCAP's recipe has it, and without, as VoxCeleb's."""
    brain = make(title)
    modules = brain.modules.eval()
    for part in modules.modules():
        if isinstance(part, MaskedBatchNorm):
            torch.nn.init.uniform_(part.running_mean, -0.1, 0.1)

    def embed(wavs, lens):
        return brain.embed(modules.mean_var_norm(modules.compute_features(wavs), lens), lens)

    wavs = torch.randn(2, 8000)
    wavs[1, 3000:] = 0
    together = embed(wavs, torch.tensor([1.0, 3000 / 8000]))
    torch.testing.assert_close(together[1:], embed(wavs[1:, :3000], torch.ones(1)), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("title", [*NETWORKS, "IEMOCAP: emotion constraint", "VoxCeleb: GhostVLAD after ECAPA"])
def test_bfloat16(make, recipe, title):
    brain = recipe["train"](
        make(
            title,
            {"device": "cpu", "precision": "bf16"},
            number_of_epochs=12 if "loss" in title or "constraint" in title else 3,
        )
    )
    assert math.isfinite(brain.losses[-1]) and brain.losses[-1] < brain.losses[0]
    assert all(weight.dtype == torch.float32 and weight.isfinite().all() for weight in brain.modules.parameters())


@pytest.mark.slow
def test_two_processes(tmp_path):
    block = tmp_path / "block.yaml"
    block.write_text(YAML["IEMOCAP: spectrogram and network"])
    words = [HERE / "recipe.py", "iemocap", block, tmp_path / "output"]
    runner = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parents[1])}
    done = subprocess.run([*runner, *map(str, words)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert math.isfinite(float(re.findall(r"loss (\S+)", done.stdout)[0]))


@pytest.mark.slow
def test_a_recipe_compiles_the_network(make, recipe, monkeypatch):
    """Traced and differentiated by PyTorch's compiler; code of it, which takes minutes, is not generated."""
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda module, **_: real(module, backend="aot_eager"))
    few = "channels: [4, 4, 4, 128]\n        blocks: [1, 1, 1, 1]"
    block = YAML["IEMOCAP: spectrogram and network"].replace("channels: [16, 32, 64, 128]", few)
    monkeypatch.setitem(YAML, "IEMOCAP: small", block)
    compiled = {"device": "cpu", "compile": True, "compile_module_keys": ["embedding_model"]}
    plain, traced = (
        recipe["train"](make("IEMOCAP: small", options, number_of_epochs=1))
        for options in ({"device": "cpu"}, compiled)
    )
    assert type(traced.modules.embedding_model).__name__ == "OptimizedModule"
    assert traced.losses == pytest.approx(plain.losses, rel=1e-3)


def test_torchscript_takes_neither_network(make):
    """What the page says; should this fail one day, it may say more."""
    options = {"device": "cpu", "jit": True, "jit_module_keys": ["embedding_model"]}
    for title in ("VoxCeleb: as it is", "VoxCeleb: network"):
        with pytest.raises((RuntimeError, NotSupportedError)):
            make(title, options)._compile()


def test_plain_pytorch():
    exec(next(block for block in PYTHON if "encoder.parameters()" in block), {})


def test_pytorch_metric_learning():
    torch.manual_seed(0)
    names = {}
    first, second = (block for block in PYTHON if "pytorch_metric_learning" in block)
    exec(first, names)
    gradient = names["embeddings"].grad
    assert gradient[names["hard"]].any() and 2 <= len(names["hard"]) <= 32
    exec(second, names)
    ours = TripletLoss(0.1)(names["embeddings"], names["emotions"])
    torch.testing.assert_close(names["theirs"], ours)
