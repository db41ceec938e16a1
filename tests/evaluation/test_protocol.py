"""The protocol is that of the readers of the corpora, and of the page that describes it."""

import hashlib
import os
import re
from pathlib import Path

import pandas as pd
import pytest
import soundfile

from ser_plugins.corpora import CremaD, Ravdess, cremad, ravdess
from ser_plugins.corpora.folds import folds_table
from ser_plugins.errors import InputError
from ser_plugins.evaluation.protocol import protocol_folds, read_reference, reference

PAGE = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")


def lay_out(folder, stems):
    """Put one sound at the place of each file of a corpus."""
    folder.mkdir()
    first, *others = [folder / f"{stem}.wav" for stem in stems]
    soundfile.write(first, [0.1, -0.1] * 1600, 16000)
    for other in others:
        os.link(first, other)
    return str(folder)


@pytest.mark.parametrize(("module", "reader"), [(ravdess, Ravdess), (cremad, CremaD)])
def test_the_folds_are_those_of_a_training(tmp_path, monkeypatch, module, reader):
    def unheard(name, table, faults, *options):  # listening takes long and changes no name
        return table, pd.DataFrame(faults, columns=["path", "fault"], dtype=str)

    monkeypatch.setattr(module, "check_utterances", unheard)
    corpus = reader(lay_out(tmp_path / "audio", module.file_stems())).read()
    assert folds_table(corpus) == protocol_folds(corpus.name)
    assert reference(corpus.name).labels == corpus.labels


@pytest.mark.parametrize("name", ["ravdess", "cremad"])
def test_the_page_defines_the_same_folds(name):
    assert f"| `{name}` | `{hashlib.sha256(protocol_folds(name)).hexdigest()}` |" in PAGE
    table = reference(name).table
    column = 1 if name == "ravdess" else 2
    for row in re.findall(r"^\| (\d+) \| (\d+–\d+) \| (\d+–\d+) \|$", PAGE, re.MULTILINE):
        speakers = table["speaker"][table["block"] == int(row[0])]
        assert f"{speakers.min()}–{speakers.max()}" == row[column]
    # Followed by hand, as the page says.
    speakers = sorted(set(table["speaker"]), key=int)
    for k in range(1, 11):
        cut = speakers[(k - 1) * len(speakers) // 10 : k * len(speakers) // 10]
        assert set(table["speaker"][table["block"] == k]) == set(cut)


def test_sexes_and_intensities_have_the_published_counts():
    women = {
        name: reference(name).table.groupby("sex")["speaker"].nunique().to_dict() for name in ("ravdess", "cremad")
    }
    assert women == {"ravdess": {"female": 12, "male": 12}, "cremad": {"female": 43, "male": 48}}
    counts = reference("cremad").table["intensity"].value_counts().to_dict()
    assert counts == {"unspecified": 6077, "high": 455, "medium": 455, "low": 455}
    assert reference("ravdess").table["intensity"].value_counts().to_dict() == {"normal": 768, "strong": 672}


def test_a_table_of_ones_own_is_a_reference(tmp_path):
    file = tmp_path / "own.csv"
    file.write_text("speaker,id,emotion,fold,extra\n007,01,NA,1,x\n008,02,sad,2,y\n")
    own = read_reference(file)
    assert own.labels == ("NA", "sad") and own.groups == []
    assert own.table.to_dict("list") == {
        "id": ["01", "02"],
        "speaker": ["007", "008"],
        "emotion": ["NA", "sad"],
        "block": [1, 2],
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,emotion\na,sad\n", r"lacks the column\(s\) speaker; it has id, emotion"),
        ("id,emotion,speaker\na,sad,x\na,happy,x\n", "a stands twice"),
        ("id,emotion,speaker\na,sad,x\nb,,x\n", "a cell of b is empty"),
        ("id,emotion,speaker\na,sad,x\n", "has one emotion, sad"),
        ("id,emotion,speaker\n", "has no rows"),
    ],
)
def test_a_table_that_is_no_reference_is_refused(tmp_path, text, message):
    file = tmp_path / "own.csv"
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        read_reference(file)
