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
from speechbrain.processing.features import InputNormalization
from torch.jit.frontend import NotSupportedError

import ser_plugins
from ser_plugins import TripletLoss, UtteranceEncoder
from ser_plugins.models.batchnorm import MaskedBatchNorm
from ser_plugins.training.transfer import transfer

HERE = Path(__file__).parent
PAGE = (HERE.parents[1] / "docs" / "swapping.md").read_text(encoding="utf-8")
YAML = {block.split("\n", 1)[0][2:]: block for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)}
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
MODEL = YAML.pop("IEMOCAP model.yaml")
NETWORKS = [title for title in YAML if title.endswith("network")]
LEARN = [title for title in YAML if not title.startswith("wav2vec2")]  # a tiny one of random weights learns too slowly
ECAPA = "VoxCeleb: GhostVLAD after ECAPA"


def small(block):
    """The same with a small network: to train those of the page takes a minute each."""
    few = "channels: [8, 8, 8, 128]\n        blocks: [1, 1, 1, 1]"
    return block.replace("channels: [32, 48, 80, 128]", few).replace("n_bins: !ref", f"{few}\n        n_bins: !ref")


def fast_first(fast, slow):
    """All of them as parameters, the second marked as slow."""
    return [*fast, *(pytest.param(title, marks=pytest.mark.slow) for title in slow if title not in fast)]


@pytest.fixture(scope="module")
def recipe():
    return runpy.run_path(str(HERE / "recipe.py"))


@pytest.fixture
def make(recipe, tmp_path, monkeypatch, write_ssl):
    """A Brain of a recipe with a block of the page, by its title."""
    (tmp_path / "frames.py").write_text(next(block for block in PYTHON if "class Frames" in block))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "frames", raising=False)

    def prepare(title, options=None, *, block=None, **changes):
        name = title.split(":")[0].lower()
        if name == "wav2vec2":
            source = write_ssl(tmp_path / "source", "wav2vec2", do_normalize=True)
            changes["wav2vec2_source"] = str(source)
        # A folder each: SpeechBrain takes up what it finds.
        block = YAML.get(title, "") if block is None else block
        return recipe["prepare"](name, block, tmp_path / str(next(numbers)), options, **changes)

    numbers = count()
    return prepare


def test_the_page_has_each_block_once():
    assert len(YAML) + 1 == PAGE.count("```yaml") == 9
    assert {title.split(":")[0] for title in YAML} == {"VoxCeleb", "IEMOCAP", "wav2vec2"}


@pytest.mark.parametrize(
    "title", fast_first(["VoxCeleb: spectrogram and network"], ["VoxCeleb: as it is", "IEMOCAP: as it is", *LEARN])
)
def test_a_recipe_learns(make, recipe, title):
    swapped = "embedding_model" in YAML.get(title, "")
    brain = recipe["train"](make(title, block=small(YAML.get(title, "")), number_of_epochs=8 if swapped else 12))
    assert all(map(math.isfinite, brain.losses)) and brain.losses[-1] < brain.losses[0]
    assert isinstance(getattr(brain.modules, "embedding_model", None), UtteranceEncoder) == swapped
    if title.endswith("spectrogram and network"):  # validation follows training from the first epoch
        assert brain.valid_losses[0] < brain.losses[0] / 2
        # The best epoch: the cyclic rate rises, and which epoch it harms differs between processors.
        assert min(brain.valid_losses) < brain.valid_losses[0] / 2 and min(brain.errors) <= 0.125


@pytest.mark.parametrize("title", [*NETWORKS, ECAPA])
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


@pytest.mark.parametrize("title", fast_first(["IEMOCAP: emotion constraint"], [*NETWORKS, ECAPA]))
def test_bfloat16(make, recipe, title):
    brain = recipe["train"](
        make(
            title,
            block=small(YAML[title]),
            options={"device": "cpu", "precision": "bf16"},
            number_of_epochs=12 if "loss" in title or "constraint" in title else 3,
        )
    )
    assert math.isfinite(brain.losses[-1]) and brain.losses[-1] < brain.losses[0]
    assert all(weight.dtype == torch.float32 and weight.isfinite().all() for weight in brain.modules.parameters())


def test_the_emotion_constraint_reads_the_numbers_of_the_recipe(make, recipe):
    """The page names the emotions in another order than the recipe numbers them."""
    brain = recipe["train"](make("IEMOCAP: emotion constraint", number_of_epochs=1))
    assert brain.hparams.compute_cost.polarity.tolist() == [0, 1, 2, 2]  # neu, hap, sad, ang


def test_ghostvlad_behind_wav2vec2_is_trained_and_saved(make, recipe):
    brain = make("wav2vec2: GhostVLAD", number_of_epochs=1)
    before = {name: weight.clone() for name, weight in brain.hparams.avg_pool.named_parameters()}
    recipe["train"](brain)
    assert all(not torch.equal(before[name], weight) for name, weight in brain.hparams.avg_pool.named_parameters())
    saved = torch.load(max(Path(brain.hparams.save_folder).glob("CKPT+*")) / "model.ckpt", weights_only=True)
    assert torch.equal(saved["0.centres"], brain.hparams.avg_pool.centres)


def test_a_checkpoint_becomes_a_model_folder_and_a_pretrained_encoder(make, recipe, tmp_path, monkeypatch):
    titles = ("IEMOCAP: spectrogram and network", "IEMOCAP: smoothed cross-entropy")
    brain = recipe["train"](make(titles[0], block="".join(YAML[title] for title in titles), number_of_epochs=1))
    monkeypatch.chdir(tmp_path)
    Path("model.yaml").write_text(MODEL)
    snippet = next(block for block in PYTHON if "save_model_folder" in block)
    exec(snippet.replace("results/ECAPA-TDNN/1968/save", str(brain.hparams.save_folder)), {})
    model, wavs = ser_plugins.load("model"), torch.randn(1, 6000)
    assert list(model.hparams.label_encoder.lab2ind) == ["neu", "hap", "sad", "ang"]
    modules, lens = brain.modules.eval(), torch.ones(1)
    with torch.no_grad():
        embeddings = brain.embed(modules.mean_var_norm(modules.compute_features(wavs), lens), lens)
        torch.testing.assert_close(model.encode_batch(wavs), embeddings, atol=1e-5, rtol=1e-4)
        scores = modules.classifier(embeddings).squeeze(1)
        torch.testing.assert_close(model.classify_batch(wavs)[0], scores, atol=1e-5, rtol=1e-4)
    encoder = make(titles[0]).modules.embedding_model  # of random weights again
    file = max(Path(brain.hparams.save_folder).glob("CKPT+*")) / "embedding_model.ckpt"
    report = transfer(encoder, str(file))
    assert len(report["matched"]) == len(encoder.state_dict())


@torch.no_grad()
def test_input_normalization_lets_padding_become_speech(make):
    """And the two remedies of the page: the lengths, or the other normalisation."""
    brain = make("VoxCeleb: spectrogram and network")
    modules = brain.modules.eval()
    wavs, lens = torch.randn(2, 16000), torch.tensor([1.0, 6000 / 16000])
    wavs[1, 6000:] = 0
    sentence = InputNormalization(norm_type="sentence", std_norm=False)

    def cosine(norm, given):
        feats, alone = modules.compute_features(wavs), modules.compute_features(wavs[1:, :6000])
        together = modules.embedding_model(norm(feats, lens), *((lens,) if given else ()))[1]
        return torch.cosine_similarity(together, modules.embedding_model(norm(alone, torch.ones(1)))[0]).item()

    assert cosine(sentence, given=False) < 0.99
    assert cosine(sentence, given=True) > 0.9999 and cosine(modules.mean_var_norm, given=False) > 0.9999


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
    """Traced and differentiated by PyTorch's compiler in one graph; code, which takes minutes, is not generated."""
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda module, **_: real(module, backend="aot_eager", fullgraph=True))
    title = "IEMOCAP: spectrogram and network"
    compiled = {"device": "cpu", "compile": True, "compile_module_keys": ["embedding_model"]}
    plain, traced = (
        recipe["train"](make(title, options, block=small(YAML[title]), number_of_epochs=1))
        for options in ({"device": "cpu"}, compiled)
    )
    assert type(traced.modules.embedding_model).__name__ == "OptimizedModule"
    assert traced.losses == pytest.approx(plain.losses, rel=1e-3)


def test_torchscript_takes_neither_network(make):
    """What the page says; should this fail one day, it may say more."""
    options = {"device": "cpu", "jit": True, "jit_module_keys": ["embedding_model"]}
    for title in ("VoxCeleb: as it is", "VoxCeleb: network"):
        with pytest.raises((RuntimeError, ValueError, NotSupportedError)):
            make(title, options)._compile()


def test_plain_pytorch():
    exec(next(block for block in PYTHON if "encoder.parameters()" in block), {})


def test_pytorch_metric_learning():
    torch.manual_seed(0)
    names = {}
    first, second = (block for block in PYTHON if "pytorch_metric_learning" in block)
    exec(first, names)
    assert names["embeddings"].grad.any()
    ours = TripletLoss(0.1)(names["embeddings"], names["emotions"])
    assert names["mined"] != ours
    exec(second, names)
    torch.testing.assert_close(names["theirs"], ours)
