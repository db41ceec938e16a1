"""The notebook of the documentation runs from top to bottom."""

import json
from pathlib import Path

import matplotlib

NOTEBOOK = Path(__file__).parents[1] / "docs/quickstart.ipynb"


def test_the_notebook_runs(tmp_path, monkeypatch, capsys):
    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            assert not cell["outputs"]
            exec("".join(cell["source"]), names)
    assert names["emotion"] in capsys.readouterr().out
    assert len(names["table"]) > 5 and (tmp_path / "utterance.wav").is_file()
