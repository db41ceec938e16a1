import functools
import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
from filelock import FileLock

from ser_plugins.training import EncoderBrain
from ser_plugins.training.recipe import Recipe

ROOT = Path(__file__).parents[2]
HPARAMS = ROOT / "hparams"
SHORT = {"vad": "none", "number_of_epochs": 2, "pretrained_encoder": "none", "crop_seconds": 0.4}
# Instead of 257 bins and 16 blocks: a training takes a fifth of the time.
NETWORK = {
    "channels": "[8, 8, 16, 16]",
    "embedding_size": 32,
    "n_bins": 40,
    "compute_features": "!new:ser_plugins.MelSpectrogram {n_mels: !ref <n_bins>, log: !ref <log_magnitude>}",
    "embedding_model": """!new:ser_plugins.UtteranceEncoder
    backbone: !new:ser_plugins.SEResNet34
        channels: !ref <channels>
        blocks: [1, 1, 1, 1]
        n_bins: !ref <n_bins>
    pooling: !new:ser_plugins.GhostVLAD
        clusters: !ref <clusters>
        ghost_clusters: !ref <ghost_clusters>
    embedding_size: !ref <embedding_size>
    speaker_normalization: !ref <speaker_normalization>""",
}
SMALL = {
    *(f"s{number}" for number in range(1, 9)),
    "huang",
    "ma",
    "lian",
}  # strategies whose network is that of base.yaml


def load_recipe(name: str) -> ModuleType:
    """Import a script of recipes/."""
    spec = importlib.util.spec_from_file_location(f"recipe_{name}", ROOT / "recipes" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def arguments(audio) -> Callable[..., list[str]]:
    """Command lines of seconds: a strategy, and what differs from the shortest run."""

    def make(strategy: str, output: Path, **changes: object) -> list[str]:
        folders = {"data_folder": audio / "synthetic", "cache_folder": audio / "cache", "output_folder": output}
        network = NETWORK if strategy in SMALL else {}
        keys = {k: v for k, v in {**folders, **SHORT, **network, **changes}.items() if v is not None}
        return [str(HPARAMS / f"{strategy}.yaml"), *(part for k, v in keys.items() for part in (f"--{k}", str(v)))]

    return make


@pytest.fixture(scope="session")
def pretrain() -> ModuleType:
    """recipes/pretrain.py as a module."""
    return load_recipe("pretrain")


@pytest.fixture(scope="session")
def experiments_recipe() -> ModuleType:
    """recipes/experiments.py as a module."""
    return load_recipe("experiments")


@pytest.fixture(scope="session")
def train_recipe() -> Callable[[Recipe], Path]:
    """What recipes/train.py runs."""
    return load_recipe("train").run  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def train(arguments, train_recipe) -> Callable[..., Path]:
    def make(strategy: str, output: Path, **changes: object) -> Path:
        return train_recipe(Recipe.from_arguments(arguments(strategy, output, **changes)))

    return make


@pytest.fixture(scope="session")
def runs(train, shared) -> Callable[[str], Path]:
    """Fold 1 of a strategy on the built-in corpus, trained once for all workers; it is only read."""

    @functools.cache
    def fold(strategy: str) -> Path:
        folder = shared / "runs" / strategy
        folder.parent.mkdir(exist_ok=True)
        with FileLock(f"{folder}.lock"):
            return train(strategy, folder) / "fold1"

    return fold


@pytest.fixture
def run_killed(monkeypatch) -> Callable[..., Path]:
    """Interrupt a run before a step, and run it again to its end.

    Checkpoints are written after each step, and with ``ckpt_interval_steps=0`` after an epoch.
    """

    def make(run: Callable[..., Path], step: int, *arguments: object, **changes: object) -> Path:
        original, steps = EncoderBrain.fit_batch, []

        def fit_batch(brain, batch):
            steps.append(batch)
            if len(steps) == step + 1:
                raise KeyboardInterrupt
            return original(brain, batch)

        often = {"ckpt_interval_minutes": 0, "ckpt_interval_steps": 1, **changes}
        with monkeypatch.context() as patch:
            patch.setattr(EncoderBrain, "fit_batch", fit_batch)
            with pytest.raises(KeyboardInterrupt):
                run(*arguments, **often)
        return run(*arguments, **often)

    return make


@pytest.fixture
def table(audio, tmp_path) -> pd.DataFrame:
    """Two speakers and two emotions of the built-in corpus: a table, written to ``tmp_path / "own.csv"``."""
    rows = []
    for speaker in range(1, 7):
        for emotion in ("happy", "sad"):
            for take in (1, 2):
                name = f"speaker{speaker:02d}-{emotion}-{take}.wav"
                source = next((audio / "synthetic").rglob(name))
                shutil.copy(source, tmp_path / name)
                rows.append({"path": name, "emotion": emotion, "speaker": f"{speaker:02d}"})
    frame = pd.DataFrame(rows)
    frame.to_csv(tmp_path / "own.csv", index=False)
    return frame
