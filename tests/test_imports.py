"""The plugins work without SpeechBrain, pandas and YAML; the command line imports what a command needs."""

import subprocess
import sys

import pytest

import ser_plugins
from ser_plugins import inference

ALONE = """
import importlib, pkgutil, sys
for name in ("speechbrain", "pandas", "hyperpyyaml", "ruamel", "ruamel.yaml", "yaml"):
    sys.modules[name] = None  # as if it were not installed
import torch
import ser_plugins
from ser_plugins import audio, metric, models
for room in (audio, metric, models):
    for module in pkgutil.iter_modules(room.__path__):
        importlib.import_module(f"{room.__name__}.{module.name}")
feats = ser_plugins.SpectrogramNorm()(ser_plugins.Spectrogram()(torch.randn(4, 8000)))
encoder = ser_plugins.UtteranceEncoder(ser_plugins.SEResNet34((4, 4, 8, 8)), ser_plugins.GhostVLAD(), 16)
embeddings = encoder(feats)
ser_plugins.EmotionConstrainedTripletLoss(["happy", "sad"])(embeddings, torch.tensor([0, 1, 0, 1])).backward()
print(tuple(embeddings.shape), ser_plugins.SpeechNormalizer(vad="none")(torch.randn(16000), 16000).shape)
"""
COMMAND = """
import sys
from ser_plugins.commands import main
try:
    main(sys.argv[1:])
finally:
    print("imported", *sorted({name.partition(".")[0] for name in sys.modules}))
"""
SLOW = {"pandas", "speechbrain", "sklearn", "scipy", "matplotlib", "librosa", "hyperpyyaml", "pyarrow", "transformers"}


def libraries(*words):
    """What a command imports."""
    done = subprocess.run([sys.executable, "-c", COMMAND, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-1500:]
    return set(done.stdout.splitlines()[-1].removeprefix("imported ").split())


def test_the_plugins_work_alone():
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "(4, 1, 16) torch.Size([16000])", done.stderr[-1500:]


@pytest.mark.parametrize("words", [["--help"], ["predict", "--help"], ["timeline", "--help"]])
def test_help_imports_no_library(words):
    found = libraries(*words)
    assert "argparse" in found
    assert not found & (SLOW | {"torch", "torchaudio", "numpy", "soundfile", "tqdm"})


def test_the_prediction_of_a_clip_imports_torch_alone(tiny_s8):
    found = libraries("predict", str(tiny_s8 / "clips" / "a.wav"), "--model", str(tiny_s8 / "model"))
    assert "torch" in found
    assert not found & (SLOW | {"torchaudio"})  # the clip has 16 kHz


@pytest.mark.parametrize("package", [ser_plugins, inference])
def test_each_public_name_is_found(package):
    assert dir(package) == sorted(package.__all__)
    for name in package.__all__:
        assert getattr(package, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = package.nothing
