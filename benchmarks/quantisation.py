"""What an exported model loses: PyTorch, ONNX and ONNX in 8 bits on the test part of one fold.

python benchmarks/quantisation.py MODEL_FOLDER PREDICTIONS FOLDER exports the model, asks all three forms of it about
the utterances that PREDICTIONS names, the predictions.csv of the model's own run, and writes
benchmarks/results/quantisation.md. The .wav files lie below FOLDER.
"""

import hashlib
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import torch
from ser_plugins.training.fit import commit
from torch.nn import functional
from tqdm import tqdm

import ser_plugins
from ser_plugins.audio.speech import normalize_file
from ser_plugins.evaluation.measures import measure
from ser_plugins.files import atomic_write
from ser_plugins.inference.onnx import OUTPUTS, export
from ser_plugins.model_folder.loading import UtteranceClassifier

HEAD = ["form", "MiB", "accuracy, %", "UAR, %", "same answer, %", "log-probabilities", "cosine of embeddings"]


def ask_torch(model: UtteranceClassifier, signals: list[torch.Tensor]) -> list[torch.Tensor]:
    """Embeddings [N, E] and log-probabilities [N, C]."""
    found = [(model.encode_batch(one[None])[0, 0], model.classify_batch(one[None])[0][0]) for one in tqdm(signals)]
    return [torch.stack(column) for column in zip(*found, strict=True)]


def ask_onnx(path: Path, signals: list[torch.Tensor]) -> list[torch.Tensor]:
    session, one = onnxruntime.InferenceSession(path), np.ones(1, dtype=np.float32)
    inputs = [{"waveforms": signal[None].numpy(), "lengths": one} for signal in signals]
    found = [session.run(list(OUTPUTS), given) for given in tqdm(inputs)]
    return [torch.from_numpy(np.concatenate(column)).flatten(1) for column in zip(*found, strict=True)]


def row(
    form: str, size: int, answers: list[torch.Tensor], exact: list[torch.Tensor], frame: pd.DataFrame, labels: list[str]
) -> str:
    best = answers[1].argmax(1)
    measured = measure(frame.assign(predicted=[labels[i] for i in best.tolist()]), labels)
    cells = [
        *(f"{size / 2**20:.2f}", f"{100 * measured['accuracy']:.1f}", f"{100 * measured['uar']:.1f}"),
        f"{100 * float((best == exact[1].argmax(1)).float().mean()):.1f}",
        f"± {float((answers[1] - exact[1]).abs().max()):.1e}",
        f"≥ {float(functional.cosine_similarity(answers[0], exact[0]).min()):.5f}",
    ]
    return f"| {form} | {' | '.join(cells)} |"


def main() -> None:
    source, predictions, folder = map(Path, sys.argv[1:])
    frame = pd.read_csv(predictions, dtype={"id": str, "speaker": str})
    paths = {path.stem: path for path in folder.rglob("*.wav")}
    model = ser_plugins.load(source)
    labels = list(frame.columns[4:])
    signals = [normalize_file(paths[name], model.audio_normalizer) for name in tqdm(frame["id"])]
    weights = source / "model.safetensors"
    title = (source / "hyperparams.yaml").read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
    with tempfile.TemporaryDirectory() as parts:
        files = {"ONNX": Path(parts) / "model.onnx", "ONNX, int8": Path(parts) / "int8.onnx"}
        export(source, *files.values())
        forms = {"PyTorch": (weights.stat().st_size, ask_torch(model, signals))}
        forms |= {form: (path.stat().st_size, ask_onnx(path, signals)) for form, path in files.items()}
    exact = forms["PyTorch"][1]
    text = [
        "    python benchmarks/quantisation.py MODEL_FOLDER PREDICTIONS FOLDER",
        "",
        f"{title}: {len(frame)} test utterances of {frame['speaker'].nunique()} speakers, one at a time; weights "
        f"{hashlib.sha256(weights.read_bytes()).hexdigest()[:12]}…; commit {commit()}; onnxruntime "
        f"{onnxruntime.__version__}, torch {torch.__version__}. Answers, the largest difference",
        "of a log-probability and the least cosine of two embeddings are those against PyTorch.",
        "",
        f"| {' | '.join(HEAD)} |",
        "|---" * len(HEAD) + "|",
        *(row(form, size, answers, exact, frame, labels) for form, (size, answers) in forms.items()),
    ]
    atomic_write(Path("benchmarks/results/quantisation.md"), "\n".join(text) + "\n")
    print("\n".join(text))


if __name__ == "__main__":
    main()
