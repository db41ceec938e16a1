"""The command ``ser-plugins`` in a fresh process: its help, and one clip by onnxruntime and by PyTorch."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import soundfile

import ser_plugins
from ser_plugins.corpora.synthetic import speak
from speed.harness import Row, alternate, milliseconds

MOST = {"help": 0.3, "a clip": 1.5}  # seconds
CODE = "from ser_plugins.commands import main; main()"


def call(*words: str) -> None:
    """Run the command in a fresh process."""
    environment = {**os.environ, "PYTHONPATH": str(Path(ser_plugins.__file__).parents[1])}
    subprocess.run([sys.executable, "-c", CODE, *words], env=environment, check=True, capture_output=True)


def run() -> Iterator[Row]:
    """Measure."""
    with tempfile.TemporaryDirectory() as name:
        clip = f"{name}/clip.wav"
        soundfile.write(clip, speak(0, 1, "happy", 1), 16000)
        calls = [["--help"], ["predict", clip], ["predict", clip, "--device", "cpu"]]  # --device takes PyTorch
        help_, graph, pytorch = alternate(*(partial(call, *words) for words in calls))
    for case, seconds in (("help", help_), ("a clip", graph)):
        limit = MOST[case]
        yield Row(f"command, {case}, against {limit} s", milliseconds(seconds), f"{limit} s", seconds / limit, most=1)
    yield Row("command, a clip, by onnxruntime against PyTorch", *map(milliseconds, (graph, pytorch)), pytorch / graph)
