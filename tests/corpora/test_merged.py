"""RAVDESS and CREMA-D as one corpus, from some of the files of all of their actors."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
import soundfile as sf

from ser_plugins import configuration
from ser_plugins.corpora import CremaD, Merged, Ravdess, Table, cremad, ravdess
from ser_plugins.corpora.folds import blocks, fold_parts, write_folds
from ser_plugins.errors import InputError


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """One clip of each actor and emotion: 24 × 8 and 91 × 6; one file that is of neither."""
    root = tmp_path_factory.mktemp("both")
    stems = {
        "ravdess": [stem for stem in ravdess.file_stems() if stem[8:-3] == "-01-01-01"],
        "cremad": [stem for stem in cremad.file_stems() if stem[5:8] == "DFA"],
    }
    for name, names in stems.items():
        (root / name).mkdir()
        for stem in [*names, f"extra-{name}"]:
            sf.write(root / name / f"{stem}.wav", np.random.default_rng(0).normal(scale=0.1, size=3200), 16000)
    return {name: str(root / name) for name in stems}


@pytest.fixture(scope="module")
def alone(folders):
    readers = {"ravdess": Ravdess, "cremad": CremaD}
    return {name: readers[name](folder, allow_incomplete=True).read() for name, folder in folders.items()}


@pytest.fixture(scope="module")
def both(folders):
    """As the YAML has it."""
    keys = {f"{name}_folder": folder for name, folder in folders.items()}
    tree = configuration.compose("s1", "both", {**keys, "allow_incomplete": True})
    return configuration.build(tree)["reader"].read()


def test_it_holds_the_utterances_of_both(both, alone):
    assert both.name == "ravdess+cremad" and not both.synthetic
    assert both.licence == "CC BY-NC-SA 4.0; ODbL 1.0"
    assert Counter(both.table["corpus"]) == {"ravdess": 24 * 8, "cremad": 91 * 6}
    for name, corpus in alone.items():
        own = both.table[both.table["corpus"] == name]
        assert own["id"].tolist() == [f"{name}-{one}" for one in corpus.table["id"]]
        assert own["speaker"].tolist() == [f"{name}-{one}" for one in corpus.table["speaker"]]
        for column in ("path", "emotion", "fault"):
            assert own[column].tolist() == corpus.table[column].tolist()
    assert both.faults["path"].tolist() == [path for corpus in alone.values() for path in corpus.faults["path"]]


def test_labels_of_one_name_are_one(both):
    assert both.labels == ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
    counts = Counter(both.table["emotion"])
    assert {counts.pop(label) for label in ("calm", "surprised")} == {24}
    assert set(counts.values()) == {24 + 91}
    assert [one.labels for one in both.corpora] == [both.labels, tuple(cremad.CODES.values())]


@pytest.mark.parametrize("n_folds", [3, 10, 24])
def test_folds_are_those_of_each(both, alone, n_folds):
    tested = []
    for fold in range(1, n_folds + 1):
        found = fold_parts(both, fold, n_folds)
        own = {name: fold_parts(corpus, fold, n_folds) for name, corpus in alone.items()}
        for part, table in found.items():
            expected = [f"{name}-{one}" for name, parts in own.items() for one in parts[part]["id"]]
            assert table["id"].tolist() == expected
        speakers = [set(table["speaker"]) for table in found.values()]
        assert not any(one & two for i, one in enumerate(speakers) for two in speakers[:i])
        tested += found["test"]["id"].tolist()
    assert sorted(tested) == sorted(both.table["id"])


def test_too_many_folds_are_told_of_the_corpus_that_they_are_too_many_for(both):
    with pytest.raises(InputError, match=r"corpus ravdess has 24 speaker.*give --n_folds 24"):
        blocks(both, 25)


def test_folds_are_written(both, tmp_path):
    write_folds(both, tmp_path / "folds.csv")
    table = pd.read_csv(tmp_path / "folds.csv")
    assert set(table.loc[table["block"] == 1, "speaker"]) == {
        *(f"ravdess-{actor:02d}" for actor in (1, 2)),
        *(f"cremad-{actor}" for actor in range(1001, 1010)),
    }


def test_folds_of_a_corpus_itself_go_before(folders, tmp_path):
    for name in "xyz":
        sf.write(tmp_path / f"{name}.wav", np.random.default_rng(ord(name)).normal(scale=0.1, size=3200), 16000)
    own = pd.DataFrame({"id": ["x", "y", "z"], "speaker": ["s0", "s1", "s2"], "fold": [2, 3, 1]})
    own.assign(path=own["id"] + ".wav", emotion="sad").to_csv(tmp_path / "own.csv", index=False)
    readers = {"own": Table(str(tmp_path / "own.csv")), "ravdess": Ravdess(folders["ravdess"], allow_incomplete=True)}
    block = blocks(Merged(readers).read(), 3)
    assert [block[f"own-s{i}"] for i in range(3)] == [2, 3, 1]
    assert [block[f"ravdess-{actor:02d}"] for actor in (1, 8, 9, 24)] == [1, 1, 2, 3]


@pytest.mark.parametrize("absent", ["ravdess", "cremad"])
def test_errors_name_the_option_of_the_corpus(folders, absent):
    given = {**folders, absent: None}
    readers = {
        "ravdess": Ravdess(given["ravdess"], allow_incomplete=True),
        "cremad": CremaD(given["cremad"], allow_incomplete=True),
    }
    with pytest.raises(InputError, match=f"corpus {absent} needs --{absent}_folder: the folder"):
        Merged(readers).read()


def test_a_merged_corpus_is_not_merged_again(folders):
    inner = Merged({"ravdess": Ravdess(folders["ravdess"], allow_incomplete=True)})
    with pytest.raises(InputError, match="corpus both is merged itself; give the corpora that it is of"):
        Merged({"both": inner, "cremad": CremaD(folders["cremad"], allow_incomplete=True)}).read()
