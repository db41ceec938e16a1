"""Embedding a folder of recordings, against a loop over SpeechBrain's ``classify_file`` and one with Silero's function.

The ``audio_normalizer`` of ``classify_file`` computes all frames of Silero at once, as the command does. Silero's own
function computes one frame after the other.
"""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from speechbrain.inference.classifiers import EncoderClassifier

from ser_plugins import load
from ser_plugins.audio.reading import load_audio
from ser_plugins.audio.speech import TOGETHER, SpeechNormalizer, join, silero, silero_together
from ser_plugins.configuration import build, compose, resolve
from ser_plugins.inference import embed
from ser_plugins.model_folder.saving import inference_yaml, save_model_folder
from speed.corpus import read_files
from speed.harness import Row, alternate

FILES = 480


def write_model(folder: Path) -> Path:
    """Write a model folder of S3 with random weights."""
    tree = compose("s3")
    built = build(tree)
    yaml = inference_yaml(resolve(tree))
    save_model_folder(folder, yaml, built["embedding_model"], built["classifier"], built["labels"])
    return folder


def run() -> Iterator[Row]:
    """Measure; the embeddings are compared first."""
    paths = read_files(FILES)
    cores = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as name:
        folder = write_model(Path(name) / "model")
        model = load(folder, device="cpu")
        fetched = str(Path(name) / "fetched")
        stock = EncoderClassifier.from_hparams(str(folder), savedir=fetched, run_opts={"device": "cpu"})

        def loop() -> None:
            for path in paths:
                stock.classify_file(str(path))

        def plain_loop() -> None:
            convert = SpeechNormalizer(vad="none")
            for path in paths:
                samples, rate = load_audio(path)
                signal = convert(torch.from_numpy(samples), rate)
                stock.classify_batch(join(signal, silero(signal))[None])

        alone = np.stack([model.encode_file(path)[0, 0].numpy() for path in paths])
        np.testing.assert_allclose(np.stack(embed(model, paths)["embedding"]), alone, atol=1e-5)
        own, one, other, plain = alternate(
            lambda: embed(model, paths, cores), lambda: embed(model, paths), loop, plain_loop, repeats=1
        )
    rate = [f"{len(paths) / seconds:.0f} files/s" for seconds in (own, one, other, plain)]
    case = f"embedding {len(paths)} files"
    yield Row(f"{case}, {cores} processes that read, against classify_file", rate[0], rate[2], other / own, 5)
    yield Row(f"{case}, one process, against classify_file", rate[1], rate[2], other / one)
    yield Row(f"{case}, {cores} processes that read, against Silero's function", rate[0], rate[3], plain / own, 5)
    yield from parts(paths, model)


def parts(paths: list[Path], model: EncoderClassifier) -> Iterator[Row]:
    """Time the parts of a file's cost: decoding with resampling, voice activity detection, the network."""
    chosen, plain = paths[:: max(1, len(paths) // TOGETHER)][:TOGETHER], SpeechNormalizer(vad="none")

    def read() -> list[torch.Tensor]:
        found = [load_audio(path) for path in chosen]
        return [plain(torch.from_numpy(samples), rate) for samples, rate in found]

    signals = sorted(read(), key=len)
    normalizer = SpeechNormalizer()
    speech = [normalizer.remove_silence(signal) for signal in signals]
    reading, together, alone, network = alternate(
        read,
        lambda: silero_together(signals),
        lambda: [silero(signal) for signal in signals],
        lambda: [model.encode_batch(signal[None]) for signal in speech],
        repeats=3,
    )
    cost = [f"{1000 * seconds / len(chosen):.1f} ms a file" for seconds in (reading, together, alone, network)]
    yield Row(f"Silero VAD, {len(chosen)} files at once against one by one", cost[1], cost[2], alone / together)
    yield Row("network alone, against reading and detection before it", cost[3], f"{cost[0]} + {cost[2]}")
