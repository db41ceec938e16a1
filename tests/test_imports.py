"""The plugins work without SpeechBrain, pandas and YAML."""

import subprocess
import sys

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


def test_the_plugins_work_alone():
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "(4, 1, 16) torch.Size([16000])", done.stderr[-1500:]
