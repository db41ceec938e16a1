"""Two processes as one: gradients, each utterance once, the same curve, killed and resumed."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ser_plugins.evaluation.figures import read_log

ROOT = Path(__file__).parents[2]
TINY = {"channels": "[4, 4, 8, 8]", "descriptor_size": 8, "embedding_size": 16, "crop_seconds": 0.4, "vad": "none"}


def launch(script, words, output, processes=2):
    runner = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with output.open("w") as file:
        return subprocess.Popen(
            [*(runner if processes > 1 else [sys.executable]), str(script), *words],
            cwd=ROOT,
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
        )


def finish(process, output):
    assert process.wait(timeout=400) == 0, output.read_text()[-12000:]


@pytest.mark.parametrize(
    ("kind", "padding"),
    [
        ("triplets", "padded"),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in [("softmax", "padded"), ("softmax", "whole")]),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [("triplets", "whole"), ("mined", "whole"), ("pairs", "whole")]
        ),
    ],
)
def test_gradients_are_those_of_one_process(tmp_path, kind, padding):
    output = tmp_path / "output.txt"
    finish(launch(Path(__file__).with_name("gradients.py"), [kind, padding], output), output)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthetic")
    return {"data_folder": folder / "synthetic", "cache_folder": folder / "cache"}


def words(yaml, folders, output, **changes):
    keys = {**folders, **TINY, "output_folder": output, **changes}
    return [f"hparams/{yaml}.yaml", *(part for key, value in keys.items() for part in (f"--{key}", str(value)))]


@pytest.mark.slow
def test_pre_training_has_the_curve_of_one_process(folders, tmp_path):
    """The same global batch; killed at its second epoch, and resumed."""
    own = {"valid_speakers": 4, "number_of_epochs": 3, "lr": 0.01, "wav_augment": "null", "feat_augment": "null"}
    output = tmp_path / "output.txt"
    one = words("pretrain", folders, tmp_path / "one", batch_size=32, **own)
    finish(launch("recipes/pretrain.py", one, output, processes=1), output)
    two = words(
        "pretrain", folders, tmp_path / "two", batch_size=16, ckpt_interval_minutes=0, ckpt_interval_steps=3, **own
    )
    process, log = launch("recipes/pretrain.py", two, output), tmp_path / "two" / "train_log.txt"
    until = time.monotonic() + 300
    while not (log.is_file() and log.read_text()) and time.monotonic() < until:
        assert process.poll() is None, output.read_text()[-3000:]
        time.sleep(0.1)
    subprocess.run(["pkill", "-KILL", "-f", str(tmp_path / "two")], check=True)
    process.wait()
    assert not (tmp_path / "two" / "metrics.json").exists()
    finish(launch("recipes/pretrain.py", two, output), output)
    curves = [read_log(tmp_path / name / "train_log.txt") for name in ("one", "two")]
    assert [len(curve) for curve in curves] == [3, 3]
    assert curves[0]["train loss"].tolist() == pytest.approx(curves[1]["train loss"].tolist(), rel=0.12)
    assert curves[0]["train loss"].iloc[-1] < curves[0]["train loss"].iloc[0]
    metrics = [json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("one", "two")]
    assert metrics[0]["n_train"] == metrics[1]["n_train"] and metrics[0]["epochs"] == metrics[1]["epochs"] == 3


@pytest.mark.slow
def test_fine_tuning_runs_in_two_processes(folders, tmp_path):
    """The first process deletes no checkpoint that the second, which is late, has still to read."""
    output = tmp_path / "output.txt"
    arguments = words("s5", folders, tmp_path / "run", number_of_epochs=1, pretrained_encoder="none")
    finish(launch(Path(__file__).with_name("late.py"), arguments, output), output)
    metrics = json.loads((tmp_path / "run" / "fold1" / "metrics.json").read_text())
    assert (metrics["strategy"], metrics["epochs"], metrics["n_test"]) == ("S5", 1, 48)
    assert output.read_text().count("results: ") == 1
