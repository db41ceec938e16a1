"""Equal error rate of an encoder, overall and within each corpus that its held-out speakers are from.

python benchmarks/trials.py ENCODER SHARDS_FOLDER takes what precedes the first "_" of a speaker's name for its corpus.
Pairs of two speakers from two corpora differ in more than the voice, and are easier. The encoder is heard through
SpeechBrain's EncoderClassifier. Writes benchmarks/results/trials.md.
"""

import sys
from pathlib import Path

import torch
from speechbrain.inference.classifiers import EncoderClassifier
from torch.nn import functional
from tqdm import tqdm

from ser_plugins.corpora.shards import open_shards
from ser_plugins.evaluation.measures import equal_error_rate
from ser_plugins.files import atomic_write
from ser_plugins.training.stream import utterance_loader


def main() -> None:
    encoder, folder = sys.argv[1:]
    shards = open_shards(Path(folder))
    if shards is None:
        sys.exit(f"error: {folder} holds no shards; give the --shards_folder of the pre-training")
    model = EncoderClassifier.from_hparams(source=encoder)
    found = {}
    with torch.no_grad():
        for batch in tqdm(utterance_loader(shards.part("trials"))):
            embeddings = model.encode_batch(*batch.signal).squeeze(1)
            found.update(zip(batch.id, functional.normalize(embeddings), strict=True))
    pairs = shards.trials()
    pairs["score"] = [float(found[a] @ found[b]) for a, b in zip(pairs["first"], pairs["second"], strict=True)]
    corpora = [pairs[side].str.split("_").str[0] for side in ("first", "second")]
    parts = {"all": pairs, "across corpora": pairs[corpora[0] != corpora[1]]}
    parts |= {f"within {name}": pairs[(corpora[0] == name) & (corpora[1] == name)] for name in sorted(set(corpora[0]))}
    lines = ["| pairs | of one speaker | of two | equal error rate, % |", "|---|---|---|---|"]
    for name, part in parts.items():
        targets = int(part["target"].sum())
        known = 0 < targets < len(part)
        rate = f"{100 * equal_error_rate(part['target'], part['score']):.2f}" if known else "–"
        lines.append(f"| {name} | {targets} | {len(part) - targets} | {rate} |")
    text = "\n".join(lines)
    atomic_write(Path("benchmarks/results/trials.md"), text + "\n")
    print(text)


if __name__ == "__main__":
    main()
