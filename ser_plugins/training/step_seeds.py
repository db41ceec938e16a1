"""A seed for each step, so that a resumed run draws what an uninterrupted one does."""

from __future__ import annotations

from typing import Any

import numpy as np
from speechbrain.utils.seed import seed_everything

from ser_plugins.distributed import rank_and_size


class StepSeeds:
    """Seed all random generators before a step.

    The seed of a step is a hash of the run's seed, the step and the process. With a sum, seeds 1 and 2 would draw the
    same values one step apart.

    Parameters
    ----------
    seed : int
        Seed of the run, 0 … 2^32 − 1.

    Raises
    ------
    ValueError
        If the seed is not such a number.

    Example
    -------
    >>> seeds, drawn = StepSeeds(1), []
    >>> for step in (5, 6, 5):
    ...     seeds(step)
    ...     drawn.append(float(np.random.random()))
    >>> drawn[0] == drawn[2], drawn[0] == drawn[1]
    (True, False)
    """

    def __init__(self, seed: int) -> None:
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
            raise ValueError(f"seed must be a whole number from 0 to 4294967295, got {seed!r}")
        self.seed = seed

    def __call__(self, step: int, augmenter: Any = None) -> None:
        """Seed ``step``, counted over the training, and the recordings that SpeechBrain's ``augmenter`` reads."""
        value = int(np.random.SeedSequence((self.seed, step, rank_and_size()[0])).generate_state(1)[0])
        seed_everything(value, verbose=False)
        # AddNoise and AddReverb read recordings through loaders of their own, which they make at first use and restart
        # at their end. Here they restart at each step, in an order of the step's own.
        for augmentation in getattr(augmenter, "augmentations", {}).values():
            for reader in ("noise_data", "rir_data"):
                if hasattr(augmentation, reader):
                    augmentation.data_loader.sampler.seed = value
                    setattr(augmentation, reader, iter(()))
