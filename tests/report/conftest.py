import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, f1_score

EMOTIONS = ["neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised"]
FACTS = {
    "synthetic": False,
    "labels": EMOTIONS,
    "pretrained_encoder": "none",
    "epochs": 25,
    "best_epoch": 16,
    "seconds": 1234.5,
    "versions": {"torch": "2.11.0", "numpy": "2.4.6"},
    "command": "python recipes/train.py hparams/s1.yaml --corpus 'ra <v> dess'",
    "commit": "0123456789" * 4,
}


def write_fold(folder: Path, fold: int, skill: float, embeddings: bool = True, **keys: object) -> None:
    """A fold as a run leaves it: 2 or 3 actors of 16 clips, a share of them recognised, and their embeddings."""
    rng = np.random.default_rng([fold, round(1000 * skill), *f"{keys['strategy']}{keys['corpus']}".encode()])
    actors = [f"{fold:02d}-{i}" for i in range(2 + fold % 2)]
    table = pd.DataFrame(
        [(actor, emotion) for actor in actors for emotion in 2 * EMOTIONS], columns=["speaker", "emotion"]
    )
    table.insert(0, "id", [f"clip-{i}" for i in range(len(table))])
    right = rng.random(len(table)) < skill
    table["predicted"] = np.where(right, table.emotion, rng.choice(EMOTIONS, len(table)))
    path = folder / f"fold{fold}"
    path.mkdir(parents=True)
    table.assign(**dict.fromkeys(EMOTIONS, -2.0)).to_csv(path / "predictions.csv", index=False)
    metrics = {
        **FACTS,
        "fold": fold,
        "n_test": len(table),
        "accuracy": float((table.emotion == table.predicted).mean()),
        "uar": float(balanced_accuracy_score(table.emotion, table.predicted)),
        "macro_f1": float(f1_score(table.emotion, table.predicted, average="macro")),
        "confusion": confusion_matrix(table.emotion, table.predicted, labels=EMOTIONS).tolist(),
        "valid_accuracy": float(rng.uniform(skill, 1)),
        **keys,
    }
    if embeddings:
        centres = np.random.default_rng(0).normal(size=(len(EMOTIONS), 32))
        found = skill * centres[[EMOTIONS.index(e) for e in table.emotion]] + rng.normal(size=(len(table), 32))
        np.savez(path / "embeddings.npz", id=table.id.to_numpy(str), embedding=found.astype(np.float32))
    (path / "metrics.json").write_text(json.dumps(metrics))


@pytest.fixture(scope="session")
def results(tmp_path_factory) -> Path:
    """Results of S1, S3, S4 and S5 on RAVDESS, S1 on CREMA-D and on one's own corpus, and two sweeps."""
    root = tmp_path_factory.mktemp("re sults")
    folds = {"S1": range(1, 11), "S3": range(1, 4), "S4": range(2, 4), "S5": [2]}
    for strategy, numbers in folds.items():
        folder = root / strategy / "ravdess" / "1"
        for fold in numbers:
            write_fold(folder, fold, 0.4 + 0.1 * int(strategy[1]), strategy=strategy, corpus="ravdess", seed=1)
        (folder / "folds.csv.sha256").write_text(f"{strategy.lower() * 32}  folds.csv\n")
    for fold in (1, 2):
        write_fold(root / "S1" / "cremad" / "7", fold, 0.5, strategy="S1", corpus="cremad", seed=7, commit=None)
    own = {"strategy": "S1", "corpus": "<b>own", "seed": 1, "synthetic": True}
    write_fold(root / "S1" / "own" / "1", 1, 0.6, embeddings=False, **own)
    for setting, skill in {"clusters/4": 0.5, "clusters/10": 0.7, "alpha/0.05": 0.6, "alpha/0.1": 0.8}.items():
        for strategy in ("S3", "S5"):
            folder = root / "sweeps" / setting / strategy / "ravdess" / "1"
            for fold in [1, 2, 3] if setting == "clusters/4" else [1, 2]:
                write_fold(folder, fold, skill, strategy=strategy, corpus="ravdess", seed=1)
    return root


@pytest.fixture
def fold() -> Callable[..., None]:
    """Writer of one fold."""
    return write_fold
