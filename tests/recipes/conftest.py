import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from ser_plugins.corpora.synthetic import Synthetic
from ser_plugins.training.brain import EncoderBrain
from ser_plugins.training.emotions import run
from ser_plugins.training.recipe import Recipe

HPARAMS = Path(__file__).parents[2] / "hparams"
TINY = {"channels": "[8, 8, 16, 16]", "descriptor_size": 16, "embedding_size": 32, "crop_seconds": 0.4}
SHORT = {"vad": "none", "number_of_epochs": 2, "speaker_epochs": 1, **TINY}


@pytest.fixture(scope="session")
def audio(tmp_path_factory) -> Path:
    """A folder with the audio of the demo corpus and, later, the cache."""
    folder = tmp_path_factory.mktemp("audio")
    Synthetic(str(folder / "demo")).read()
    return folder


@pytest.fixture(scope="session")
def arguments(audio) -> Callable[..., list[str]]:
    """Command lines of seconds: a strategy, and what differs from the shortest run."""

    def make(strategy: str, output: Path, **changes: object) -> list[str]:
        folders = {"data_folder": audio / "demo", "cache_folder": audio / "cache", "output_folder": output}
        keys = {k: v for k, v in {**folders, **SHORT, **changes}.items() if v is not None}
        return [str(HPARAMS / f"{strategy}.yaml"), *(part for k, v in keys.items() for part in (f"--{k}", str(v)))]

    return make


@pytest.fixture(scope="session")
def train(arguments) -> Callable[..., Path]:
    def make(strategy: str, output: Path, **changes: object) -> Path:
        return run(Recipe.from_arguments(arguments(strategy, output, **changes)))

    return make


@pytest.fixture(scope="session")
def runs(train, tmp_path_factory) -> Callable[[str], Path]:
    """Fold 1 of a strategy on the demo corpus, trained once."""
    folder = tmp_path_factory.mktemp("runs")

    def fold(strategy: str) -> Path:
        return train(strategy, folder / strategy) / "fold1"

    return fold


@pytest.fixture
def run_killed(monkeypatch) -> Callable[..., Path]:
    """Run to the end, but break off before a step, of all that are taken, and begin again.

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
    """Two speakers and two emotions of the demo corpus: a table, written to ``tmp_path / "own.csv"``."""
    rows = []
    for speaker in range(1, 7):
        for emotion in ("happy", "sad"):
            for take in (1, 2):
                name = f"speaker{speaker:02d}-{emotion}-{take}.wav"
                source = next((audio / "demo").rglob(name))
                shutil.copy(source, tmp_path / name)
                rows.append({"path": name, "emotion": emotion, "speaker": f"{speaker:02d}"})
    frame = pd.DataFrame(rows)
    frame.to_csv(tmp_path / "own.csv", index=False)
    return frame
