"""What padding changes: each utterance alone, and beside one five times as long.

python benchmarks/padding.py MODEL_FOLDER FOLDER … embeds 200 .wav files below each FOLDER both ways with the exported
model, and writes the largest difference of any value of the embeddings to benchmarks/results/padding.md.
"""

import random
import sys
import tempfile
from pathlib import Path

import torch
from speechbrain.inference.classifiers import EncoderClassifier
from tqdm import tqdm

from ser_plugins.audio.speech import SpeechNormalizer, normalize_file
from ser_plugins.files import atomic_write

COUNT = 200


def difference(model: EncoderClassifier, signal: torch.Tensor, longer: torch.Tensor) -> tuple[float, float]:
    batch = torch.nn.utils.rnn.pad_sequence([signal, longer], batch_first=True)
    alone = model.encode_batch(signal[None])[0]
    together = model.encode_batch(batch, torch.tensor([len(signal) / len(longer), 1.0]))[0]
    return float((together - alone).abs().max()), float(alone.abs().max())


def main() -> None:
    rows = []
    normalizer = SpeechNormalizer()
    with tempfile.TemporaryDirectory() as fetched:
        model = EncoderClassifier.from_hparams(source=sys.argv[1], savedir=fetched)
        for folder in sys.argv[2:]:
            paths = random.Random(0).sample(sorted(Path(folder).rglob("*.wav")), COUNT)
            signals = [normalize_file(path, normalizer) for path in tqdm(paths, desc=folder)]
            found = []
            for i, signal in enumerate(tqdm(signals, desc=folder)):
                others = torch.cat([signals[(i + k) % COUNT] for k in range(1, 40)])
                found.append(difference(model, signal, others[: 5 * len(signal)]))
            change, size = (max(values) for values in zip(*found, strict=True))
            rows.append(f"| {Path(folder).name} | {COUNT} | {change:.1e} | {size:.1f} |")
    head = ["| corpus | utterances | largest difference | largest value |", "|---|---|---|---|"]
    atomic_write(Path("benchmarks/results/padding.md"), "\n".join([*head, *rows]) + "\n")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
