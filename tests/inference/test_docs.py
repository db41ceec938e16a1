"""The page on inference says what is true."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ser_plugins.commands import main

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "inference.md").read_text(encoding="utf-8")


def test_the_examples_run(model_folder, write_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(model_folder, "results/S5/synthetic/1/fold1/model")
    write_model(tmp_path / "results/S8/ravdess/1/fold1/model", "s8")
    rng = np.random.default_rng(0)
    for name in ("clips/a.wav", "clips/b/c.wav", "more/one.wav", "interview.wav", "ann/a.wav", "ann/b.wav"):
        Path(name).parent.mkdir(exist_ok=True, parents=True)
        soundfile.write(name, rng.normal(0, 0.1, 64000), 16000)
    with_speaker, example = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names = {}
    exec(with_speaker, names)
    assert len(names["table"]) == 2 and names["speaker"].features is not None
    names = {}
    exec(example, names)
    assert len(names["table"]) == 3 and len(names["vectors"]) == 2 and len(names["frame"]) == 2
    assert Path("interview.png").exists()
    assert Path("interview.rttm").read_text().startswith("SPEAKER interview 1 0.000 ")


def test_options_exist(capsys):
    for command in ("predict", "timeline", "enrol"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
    known = capsys.readouterr().out
    assert [option for option in re.findall(r"--\w+", PAGE) if option not in known] == []
