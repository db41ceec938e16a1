"""The wheel trains on its own: installed elsewhere, by a YAML of one's own, in an empty folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from setuptools import find_packages

ROOT = Path(__file__).parents[1]
OWN = """\
extends: s5.yaml
strategy: mine
pretrained_encoder: none
vad: none
channels: [4, 4, 8, 8]
descriptor_size: 8
embedding_size: 16
crop_seconds: 0.4
number_of_epochs: 1
"""


def test_every_package_is_listed():
    listed = [line.strip() for line in (ROOT / "setup.cfg").read_text().split("packages =")[1].split("#")[0].split()]
    assert set(listed) == {
        *find_packages(str(ROOT), include=["ser_plugins*"]),
        "ser_plugins.hparams",
        "ser_plugins.recipes",
    }


@pytest.mark.slow
def test_an_installed_wheel_trains_the_built_in_corpus(tmp_path):
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run([*pip, *build], check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    subprocess.run([*pip, "install", "--no-deps", "--target", str(site), str(wheel)], check=True, capture_output=True)
    work = tmp_path / "work"
    work.mkdir()
    (work / "mine.yaml").write_text(OWN)
    environment = {**os.environ, "PYTHONPATH": str(site)}
    words = [sys.executable, "-m", "ser_plugins.recipes.train", "mine.yaml"]
    done = subprocess.run(words, cwd=work, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    metrics = json.loads((work / "results/mine/synthetic/1/fold1/metrics.json").read_text())
    assert (metrics["strategy"], metrics["epochs"], metrics["commit"]) == ("mine", 1, None)
