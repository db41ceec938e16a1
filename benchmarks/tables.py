"""Tables of what a measurement found."""

from collections.abc import Mapping, Sequence

import numpy as np


def by_fold(title: str, right: Mapping[str, Mapping[int, Sequence[bool]]]) -> str:
    """Accuracy of each way, a column a fold, and their mean; given is whether each utterance was recognised."""
    folds = sorted({fold for of in right.values() for fold in of})
    lines = [
        f"{title}\n",
        f"| utterances | {' | '.join(f'fold {fold}' for fold in folds)} | mean |",
        "|---" * (2 + len(folds)) + "|",
    ]
    for way, of in right.items():
        means = [100 * float(np.mean(of[fold])) for fold in folds]
        lines.append(f"| {way} | {' | '.join(f'{mean:.1f}' for mean in [*means, float(np.mean(means))])} |")
    return "\n".join(lines) + "\n"
