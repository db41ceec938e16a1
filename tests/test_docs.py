"""The examples of docs/plugins.md, as the page has them."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest
import soundfile
import torch

from ser_plugins.corpora.synthetic import speak
from ser_plugins.errors import InputError
from ser_plugins.training.recipe import Recipe

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
POOLING, CORPUS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
SETTINGS = dict(
    zip(("deviation", "corpora/underscores"), re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL), strict=True)
)
SHORT = {"vad": "none", "number_of_epochs": 2, "channels": "[4, 4, 8, 8]", "crop_seconds": 0.4}


def train_recipe():
    """Import recipes/train.py."""
    spec = importlib.util.spec_from_file_location("recipe_train", ROOT / "recipes" / "train.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def plugins(tmp_path, monkeypatch):
    """The module my_plugins of the page, and its YAML files in the same folder."""
    (tmp_path / "my_plugins.py").write_text(f"{POOLING}\n\n{CORPUS}")
    (tmp_path / "corpora").mkdir()
    for name, text in SETTINGS.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_plugins", raising=False)
    import my_plugins

    return my_plugins


@pytest.fixture
def audio(tmp_path):
    """Two emotions of six synthetic speakers."""
    for speaker in range(1, 7):
        for emotion in ("happy", "sad"):
            for take in (1, 2):
                path = tmp_path / "own" / f"{speaker:02d}_{emotion}_{take}.wav"
                path.parent.mkdir(exist_ok=True)
                soundfile.write(path, speak(0, speaker, emotion, take), 16000)
    return tmp_path / "own"


def test_the_examples_are_short():
    assert len(POOLING.splitlines()) <= 30 and len(CORPUS.splitlines()) <= 40


def test_the_pooling_is_that_of_each_utterance_alone(plugins):
    pooling, descriptors = plugins.DeviationPooling(), torch.randn(2, 9, 6)
    pooling.set_input_size(6)
    alone = descriptors[1, :5]
    expected = torch.cat([alone.mean(0), alone.std(0, unbiased=False)])
    torch.testing.assert_close(pooling(descriptors, torch.tensor([1.0, 5 / 9]))[1], expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(pooling(descriptors), pooling(descriptors, torch.ones(2)))
    assert pooling(descriptors).shape == (2, pooling.output_size)


def test_both_are_cross_validated_by_name(plugins, audio, tmp_path):
    keys = {"corpus": "underscores", "data_folder": audio, "cache_folder": tmp_path / "cache", "n_folds": 3}
    keys |= {"fold": "all", "output_folder": tmp_path / "out", **SHORT}
    words = [part for key, value in keys.items() for part in (f"--{key}", str(value))]
    train_recipe().run(Recipe.from_arguments([str(tmp_path / "deviation.yaml"), *words]))
    assert (tmp_path / "out" / "summary.json").is_file()
    tested = 0
    for fold in (1, 2, 3):
        folder = tmp_path / "out" / f"fold{fold}"
        metrics = json.loads((folder / "metrics.json").read_text())
        assert (metrics["strategy"], metrics["corpus"]) == ("DEVIATION", "underscores")
        assert "my_plugins.DeviationPooling" in (folder / "model" / "hyperparams.yaml").read_text()
        tested += metrics["n_test"]
    assert tested == len(list(audio.iterdir())) == 24


def test_the_corpus_stops_at_what_is_missing(plugins, audio):
    (audio / "03_sad_2.wav").unlink()
    with pytest.raises(InputError, match="1 of 24 files are missing"):
        plugins.Underscores(str(audio)).read()
