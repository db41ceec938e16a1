#!/usr/bin/env python3
"""Convert the published VoxCeleb2 encoder of Xie et al.: python recipes/convert_vgg.py weights.h5 FOLDER."""

import argparse
import sys
from pathlib import Path

from ser_plugins.errors import InputError
from ser_plugins.model_folder.vgg import URL, convert


def main() -> None:
    parser = argparse.ArgumentParser(description=f"Convert weights.h5 of {URL} to a folder for --pretrained_encoder.")
    parser.add_argument("weights", type=Path, help="Keras' file, weights.h5")
    parser.add_argument("folder", type=Path, help="where the encoder is written")
    given = parser.parse_args()
    try:
        genuine = convert(given.weights, given.folder)
    except InputError as error:
        sys.exit(f"error: {error}")
    if not genuine:
        print(f"{given.weights} is NOT the published file: it fits the network, and nothing is known of its origin")
    print(f"encoder: {given.folder}")
    print(f"  python recipes/train.py hparams/s5_thin.yaml --pretrained_encoder {given.folder}")


if __name__ == "__main__":
    main()
