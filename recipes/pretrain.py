#!/usr/bin/env python3
"""Pre-train on speakers: python recipes/pretrain.py hparams/pretrain.yaml [--corpus …] [--key value …]."""

from ser_plugins.training.cli import start
from ser_plugins.training.speakers import pretrain

if __name__ == "__main__":
    recipe, folder = start(pretrain)
    print(f"results: {folder}")
    print(f"first weights for recipes/train.py: --pretrained_encoder {folder / 'encoder'}")
