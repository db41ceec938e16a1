"""Choice of the SVM's C and gamma on 6,000 embeddings: against scikit-learn's GridSearchCV over the same grid."""

from collections.abc import Iterator

import torch
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.svm import SVC
from torch.nn import functional

from ser_plugins import SVMClassifier
from speed.harness import Row, alternate

TRAIN, VALID, CLASSES, DIMENSIONS = 6000, 744, 6, 512
C, GAMMA = [1, 10, 100], ["scale", 0.5, 2.0]


def run() -> Iterator[Row]:
    """Measure; both fit the chosen SVM once more at the end."""
    torch.manual_seed(0)
    labels = torch.randint(CLASSES, (TRAIN + VALID,))
    embeddings = functional.normalize(
        torch.randn(CLASSES, DIMENSIONS)[labels] + 4 * torch.randn(len(labels), DIMENSIONS)
    )
    embeddings = embeddings.double()
    split = PredefinedSplit([-1] * TRAIN + [0] * VALID)
    search = GridSearchCV(SVC(break_ties=True), {"C": C, "gamma": GAMMA}, cv=split, refit=False)
    machine = SVMClassifier(CLASSES)

    def ours() -> None:
        machine.fit(embeddings[:TRAIN], labels[:TRAIN], embeddings[TRAIN:], labels[TRAIN:], C, GAMMA)

    def theirs() -> None:
        search.fit(embeddings.numpy(), labels.numpy())
        SVC(break_ties=True, **search.best_params_).fit(embeddings[:TRAIN].numpy(), labels[:TRAIN].numpy())

    own, other = alternate(ours, theirs, repeats=1)
    best = search.best_score_, machine.chosen["accuracy"]
    assert abs(best[0] - best[1]) < 1e-9, best
    chosen = f"C {machine.chosen['C']:g}, gamma {machine.chosen['gamma']}"
    found = f"C {search.best_params_['C']:g}, gamma {search.best_params_['gamma']}"
    case = f"SVM's C and gamma, {TRAIN:,} embeddings"
    yield Row(case, f"{own:.1f} s, {chosen}", f"{other:.1f} s, {found}", other / own, 2)
