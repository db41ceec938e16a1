#!/usr/bin/env python3
"""Convert published weights for --pretrained_encoder: python recipes/convert.py vgg|campplus|whisper FILE OUT."""

import argparse
import sys
from pathlib import Path

from ser_plugins.errors import InputError
from ser_plugins.model_folder.convert import CAMPPLUS_URL, URL, convert_campplus, convert_vgg
from ser_plugins.model_folder.whisper import convert_whisper


def vgg(file: Path, out: Path) -> None:
    """Convert weights.h5 of Xie et al., ICASSP 2019."""
    if not convert_vgg(file, out):
        print(f"{file} is NOT the published file of {URL}: it fits the network, and its origin is unknown")
    print(f"encoder: {out}")
    print(f"  python recipes/train.py hparams/s5_thin.yaml --pretrained_encoder {out}")


def campplus(file: Path, out: Path) -> None:
    """Convert campplus_cn_en_common.pt of 3D-Speaker: Wang et al., Interspeech 2023."""
    if not convert_campplus(file, out):
        print(f"{file} is NOT the published file of {CAMPPLUS_URL}: it fits the network, and its origin is unknown")
    print(f"encoder: {out}")
    print(f"  python recipes/train.py hparams/probe.yaml --pretrained_encoder {out}")


def whisper(file: Path, out: Path) -> None:
    """Convert model.bin of a faster-whisper, in CTranslate2's format: Radford et al., ICML 2023."""
    convert_whisper(file, out)
    print(f"encoder: {out}")
    print(f"  python recipes/train.py hparams/probe_whisper.yaml --ssl_source {out}")


FORMATS = (vgg, campplus, whisper)


def main() -> None:
    """Run the subcommand of a format."""
    parser = argparse.ArgumentParser(description=__doc__)
    subparsers = parser.add_subparsers(required=True, metavar="|".join(convert.__name__ for convert in FORMATS))
    for convert in FORMATS:
        subparser = subparsers.add_parser(convert.__name__, help=convert.__doc__, description=convert.__doc__)
        subparser.add_argument("file", type=Path, help="the published file")
        subparser.add_argument("out", type=Path, help="folder to write, for --pretrained_encoder")
        subparser.set_defaults(convert=convert)
    given = parser.parse_args()
    try:
        given.convert(given.file, given.out)
    except InputError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
