"""One clip of 3 s on one thread, and a fresh process up to its first output: against ECAPA-TDNN and wav2vec2-base.

All models have random weights and their usual size; they map a waveform to a class. The others have no voice activity
detection, so it is timed separately.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from hyperpyyaml import load_hyperpyyaml

import ser_plugins
from ser_plugins.audio.reading import SAMPLE_RATE
from ser_plugins.inference.onnx import Network, export
from ser_plugins.model_folder.saving import save_model_folder
from speed.harness import Row, alternate, milliseconds, timings
from speed.inference import write_model

SAMPLES, CLASSES, REPEATS, STARTS = 48000, 8, 200, 5
ECAPA = """
audio_normalizer: !new:speechbrain.dataio.preprocess.AudioNormalizer
compute_features: !new:speechbrain.lobes.features.Fbank
    n_mels: 80
mean_var_norm: !new:speechbrain.processing.features.InputNormalization
    norm_type: sentence
    std_norm: false
embedding_model: !new:speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN
    input_size: 80
    channels: [512, 512, 512, 512, 1536]
    attention_channels: 64
    lin_neurons: 96
classifier: !new:speechbrain.lobes.models.ECAPA_TDNN.Classifier
    input_size: 96
    out_neurons: 8
modules:
    compute_features: !ref <compute_features>
    mean_var_norm: !ref <mean_var_norm>
    embedding_model: !ref <embedding_model>
    classifier: !ref <classifier>
label_encoder: !new:speechbrain.dataio.encoder.CategoricalEncoder
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    loadables:
        embedding_model: !ref <embedding_model>
        classifier: !ref <classifier>
        label_encoder: !ref <label_encoder>
"""
# Code of a fresh process up to its first output, run in the folder of all models.
WAVEFORM = f"import torch; wavs = torch.randn(1, {SAMPLES})\n"
PYTORCH = "import ser_plugins; model = ser_plugins.load('ours')\n"
ONNX = """
import numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession('{}.onnx', options)
wavs = numpy.random.randn(1, {}).astype('float32')
session.run(None, {{'waveforms': wavs, 'lengths': numpy.ones(1, 'float32')}})
"""
STARTED = {
    "PyTorch": PYTORCH + WAVEFORM + "model.classify_batch(wavs)",
    "ONNX": ONNX.format("fp32", SAMPLES),
    "ONNX, int8": ONNX.format("int8", SAMPLES),
    "ECAPA-TDNN": "from speechbrain.inference.classifiers import EncoderClassifier as E\n"
    f"model = E.from_hparams(source='ecapa', savedir='fetched')\n{WAVEFORM}model.classify_batch(wavs)",
    "wav2vec2-base": "from transformers import Wav2Vec2ForSequenceClassification as W\n"
    f"model = W.from_pretrained('wav2vec2').eval()\n{WAVEFORM}with torch.no_grad(): model(wavs).logits.argmax()",
    "PyTorch, from a file": PYTORCH + "model.classify_file('clip.wav')",
}
OTHERS = ("ECAPA-TDNN", "wav2vec2-base")


def write(folder: Path) -> None:
    """Write all models and a clip."""
    from transformers import Wav2Vec2Config, Wav2Vec2ForSequenceClassification

    torch.manual_seed(0)
    built, labels = load_hyperpyyaml(ECAPA), [f"class{i}" for i in range(CLASSES)]
    save_model_folder(folder / "ecapa", ECAPA, built["embedding_model"], built["classifier"], labels)
    export(write_model(folder / "ours"), folder / "fp32.onnx", folder / "int8.onnx")
    Wav2Vec2ForSequenceClassification(Wav2Vec2Config(num_labels=CLASSES)).save_pretrained(folder / "wav2vec2")
    soundfile.write(folder / "clip.wav", torch.randn(SAMPLES).numpy() * 0.1, SAMPLE_RATE)


def session(path: Path) -> Callable[[torch.Tensor], list[Any]]:
    """Make a function that classifies by onnxruntime on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    opened, one = onnxruntime.InferenceSession(path, options), np.ones(1, dtype=np.float32)
    return lambda wavs: opened.run(None, {"waveforms": wavs.numpy(), "lengths": one})


def load_all(folder: Path) -> dict[str, Callable[[torch.Tensor], Any]]:
    """Load all models; each becomes a function of a waveform."""
    from speechbrain.inference.classifiers import EncoderClassifier
    from transformers import Wav2Vec2ForSequenceClassification

    model = ser_plugins.load(folder / "ours")
    compiled = torch.compile(Network(model).eval())
    ecapa = EncoderClassifier.from_hparams(source=str(folder / "ecapa"), savedir=str(folder / "fetched"))
    wav2vec2 = Wav2Vec2ForSequenceClassification.from_pretrained(folder / "wav2vec2").eval()
    return {
        "PyTorch": model.classify_batch,
        "torch.compile": lambda wavs: compiled(wavs, torch.ones(1)),
        "ONNX": session(folder / "fp32.onnx"),
        "ONNX, int8": session(folder / "int8.onnx"),
        "ECAPA-TDNN": ecapa.classify_batch,
        "wav2vec2-base": lambda wavs: wav2vec2(wavs).logits.argmax(1),
    }


def check(found: dict[str, Callable[[torch.Tensor], Any]], wavs: torch.Tensor) -> None:
    """Check that our forms agree."""
    expected = found["PyTorch"](wavs)[0]
    for name, tolerance in (("torch.compile", 1e-4), ("ONNX", 1e-4), ("ONNX, int8", 0.5)):
        torch.testing.assert_close(torch.as_tensor(found[name](wavs)[1]), expected, atol=tolerance, rtol=0)


def start(folder: Path, code: str) -> None:
    """Run code in a fresh process."""
    source = str(Path(ser_plugins.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, check=True, capture_output=True)


def compare(what: str, found: dict[str, float]) -> Iterator[Row]:
    """Compare each of ours with each of the others."""
    for name, seconds in found.items():
        for other in OTHERS:
            if name not in OTHERS:
                cells = milliseconds(seconds), milliseconds(found[other])
                yield Row(f"{what}, {name} against {other}", *cells, found[other] / seconds, least=1)


@torch.no_grad()
def run() -> Iterator[Row]:
    """Measure."""
    with tempfile.TemporaryDirectory() as name:
        folder, wavs = Path(name), torch.randn(1, SAMPLES) * 0.1
        write(folder)
        found = load_all(folder)
        check(found, wavs)
        seconds = timings(*(partial(classify, wavs) for classify in found.values()), repeats=REPEATS)
        for share in (50, 99):
            values = [float(np.percentile(one, share)) for one in seconds]
            yield from compare(f"clip of 3 s, p{share}", dict(zip(found, values, strict=True)))
        speech = ser_plugins.SpeechNormalizer()
        vad, network = alternate(lambda: speech.remove_silence(wavs[0]), lambda: found["ONNX"](wavs), repeats=20)
        yield Row("voice activity detection of 3 s against the network, ONNX", milliseconds(vad), milliseconds(network))
        starts = alternate(*(partial(start, folder, code) for code in STARTED.values()), repeats=STARTS)
        cold = dict(zip(STARTED, starts, strict=True))
        from_file = cold.pop("PyTorch, from a file")
        yield from compare("fresh process to first output", cold)
        cells = milliseconds(from_file), milliseconds(cold["PyTorch"])
        yield Row("fresh process to first output, PyTorch, from a file against a waveform", *cells)
