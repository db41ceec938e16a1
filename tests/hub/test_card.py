"""The card: every number from the run, licences of all data, and nothing said that is not known."""

import json
import re
import statistics

import pytest
from huggingface_hub import ModelCard

from ser_plugins.errors import InputError
from ser_plugins.hub.card import model_card
from ser_plugins.model_folder.lineage import Training, file_sha256, write_lineage
from ser_plugins.model_folder.plain import load_plain


def write_card(model, **options):
    card = model_card(model, "user/name", 12, **options)
    return card, ModelCard(card).data


def section(card, title):
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", card, re.DOTALL | re.MULTILINE)[1]


def rows(text):
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in lines]


def write_folds(write_run, run, accuracies):
    """Folds of one experiment; the first one has the model."""
    model = write_run(run / "fold1", accuracy=accuracies[0])
    metrics = json.loads((run / "fold1" / "metrics.json").read_text())
    for fold, accuracy in enumerate(accuracies[1:], 2):
        (run / f"fold{fold}").mkdir()
        (run / f"fold{fold}" / "metrics.json").write_text(json.dumps({**metrics, "fold": fold, "accuracy": accuracy}))
    return model


def test_its_results_are_those_of_the_run(tmp_path, write_run):
    card, data = write_card(write_run(tmp_path / "fold1"))
    found = {(one.dataset_name, one.metric_type): one.metric_value for one in data.eval_results}
    assert found == {("RAVDESS", "accuracy"): 5 / 9, ("RAVDESS", "recall"): 0.6123456, ("RAVDESS", "f1"): 0.4987654}
    assert data.eval_results[0].dataset_split == "test speakers of fold 1 of 10"
    table = rows(section(card, "Results"))
    assert ["RAVDESS", "9", "55.6", "61.2", "49.9"] in table
    assert table[-3:] == [["neutral", "1", "2", "0"], ["happy", "0", "3", "0"], ["sad", "1", "1", "1"]]
    assert "](confusion.png)" in card
    assert set(re.findall(r"\d+\.\d+", section(card, "Results"))) == {"55.6", "61.2", "49.9"}


def test_it_says_how_the_probabilities_were_calibrated(tmp_path, write_run):
    facts = {"temperature": 1.534, "ece_uncalibrated": 0.1234, "ece": 0.0456}
    card, _ = write_card(write_run(tmp_path / "fold1", **facts))
    said = " ".join(section(card, "Results").split())
    assert "A temperature of 1.53, fitted on the validation speakers" in said and "from 12.3 to 4.6 %" in said


def test_other_folds_stand_beside_it_with_their_mean(tmp_path, write_run):
    accuracies = [0.7, 0.5, 0.45]
    card, _ = write_card(write_folds(write_run, tmp_path / "1", accuracies))
    table = rows(section(card, "Results"))
    assert [row[1] for row in table if row[0] in {"1 (this model)", "2", "3"}] == ["70.0", "50.0", "45.0"]
    mean = 100 * statistics.mean(accuracies)
    assert next(row for row in table if row[0] == "mean of 3 of 10")[1] == f"{mean:.1f}"
    assert f"This fold is {70 - mean:.1f} points of accuracy above it" in card


def test_a_fold_below_the_mean_takes_no_warning(tmp_path, write_run):
    card, _ = write_card(write_folds(write_run, tmp_path / "1", [0.5, 0.6]))
    assert "points of accuracy" not in card


@pytest.mark.parametrize(
    ("changes", "licence", "said"),
    [
        ({"corpus": "ravdess"}, "cc-by-nc-sa-4.0", "not for commercial use"),
        ({"corpus": "cremad"}, "odbl", "licence of CREMA-D, ODbL 1.0"),
        ({"corpus": "own"}, "unknown", "ask who published the model"),
        ({"corpus": "own", "licence": "unknown"}, "unknown", "`own`: licence unknown"),
        ({"corpus": "own", "licence": "CC0"}, "other", "`own`: licence CC0"),
        ({"corpus": "own+more", "licence": "CC0; CC BY"}, "other", "`own`, `more`: licence CC0; CC BY"),
        ({"corpus": "own+cremad", "licence": "CC0; ODbL 1.0"}, "unknown", "`own`: licence unknown"),
        ({"corpus": "demo", "synthetic": True}, "apache-2.0", "is of no use for real speech"),
        ({"corpus": "ravdess", "pretrained_encoder": "some/encoder"}, "cc-by-nc-sa-4.0", "ask who published the model"),
        ({"corpus": "cremad", "pretrained_encoder": "some/encoder"}, "unknown", "`some/encoder`, of which nothing"),
    ],
)
def test_its_licence_is_that_of_the_data(tmp_path, write_run, changes, licence, said):
    card, data = write_card(write_run(tmp_path / "fold1", **changes))
    assert data.license == licence and said in card
    assert ("commercial use" in card) == (licence == "cc-by-nc-sa-4.0")


def test_each_of_merged_corpora_is_listed(tmp_path, write_run):
    parts = {
        "ravdess": {"n_test": 4, "accuracy": 0.25, "uar": 0.3, "macro_f1": 0.2},
        "cremad": {"n_test": 5, "accuracy": 0.8, "uar": 0.7, "macro_f1": 0.6},
    }
    card, data = write_card(write_run(tmp_path / "fold1", corpus="ravdess+cremad", corpora=parts))
    assert data.license == "cc-by-nc-sa-4.0" and data.datasets == ["cremad", "ravdess"]
    table = rows(section(card, "Results"))
    assert ["RAVDESS", "4", "25.0", "30.0", "20.0"] in table and ["CREMA-D", "5", "80.0", "70.0", "60.0"] in table
    assert len(data.eval_results) == 9


def record(model, *trainings):
    """Write lineage.json of a model: settings of each training, the model's own one last."""
    weights = file_sha256(model / "embedding_model.ckpt")
    common = {"run_id": "a", "strategy": "S6", "corpus": "ravdess", "fold": 1, "seed": 1, "sha256": weights}
    write_lineage(model, [Training(**{**common, **one}) for one in trainings])


def test_earlier_stages_are_those_of_the_lineage(tmp_path, write_run):
    model = write_run(tmp_path / "fold1", pretrained_encoder="somewhere/model")
    record(model, {"corpus": "cremad"}, {"start": "somewhere/model"})
    card, data = write_card(model)
    stages = re.findall(r"^\d\. (.*)$", section(card, "Training"), re.MULTILINE)
    assert [stage.split(":")[0] for stage in stages] == [
        "Random weights.",
        "Emotions on CREMA-D",
        "Emotions on RAVDESS",
    ]
    assert data.datasets == ["cremad", "ravdess"] and "ODbL" in card and "somewhere" not in card
    assert "earlier stage" not in card


def test_a_licence_of_the_pre_training_is_that_of_its_record(tmp_path, write_run):
    model = write_run(tmp_path / "fold1", corpus="cremad", pretrained_encoder="builtin")
    record(model, {"corpus": "a+b", "strategy": "distil", "fold": None, "licence": "CC0"}, {"corpus": "cremad"})
    card, data = write_card(model)
    assert "`a`, `b`: licence CC0" in card and data.license == "odbl" and "is unknown" not in card


def test_a_distilled_encoder_is_named_as_such(tmp_path, write_run):
    model = write_run(tmp_path / "fold1", pretrained_encoder="builtin")
    record(model, {"corpus": "speech", "strategy": "distil", "fold": None}, {})
    assert "2. Distillation on speech: distil." in section(write_card(model)[0], "Training")


def test_a_folder_of_the_same_name_is_no_earlier_stage(tmp_path, write_run):
    """A relative name of the initial weights may be that of an unrelated folder above."""
    write_run(tmp_path / "results" / "encoder", corpus="cremad")
    card, data = write_card(write_run(tmp_path / "results" / "fold1", pretrained_encoder="results/encoder/model"))
    assert data.datasets == ["ravdess"] and "the encoder `results/encoder/model`" in card and "CREMA-D" not in card


@pytest.mark.parametrize(
    ("earlier", "unknown"),
    [
        ({"corpus": "ravdess", "speakers": ("64fc2b9b9ac2",)}, False),
        ({"corpus": "ravdess"}, True),
        ({"corpus": "cremad"}, False),
        ({"corpus": "cremad", "start": "some/encoder"}, True),
    ],
)
def test_an_earlier_stage_that_may_have_used_the_test_speakers_is_marked(tmp_path, write_run, earlier, unknown):
    model = write_run(tmp_path / "fold1")
    record(model, earlier, {})
    assert ("Whether an earlier stage of training, below, used the test speakers" in write_card(model)[0]) == unknown


@pytest.mark.parametrize(
    "settings", [{"speaker_normalization": "features"}, {"speaker_normalization": "features+embeddings"}]
)
def test_the_card_of_a_speaker_normalised_model_says_so(tmp_path, write_run, write_model, settings):
    model = write_run(tmp_path / "fold1")
    assert "speaker_statistics" not in write_card(model)[0]
    write_model(model, "s6", **settings)
    card, _ = write_card(model)
    assert "speaker_statistics(model," in section(card, "Use")
    assert "measured on all test utterances of the speaker" in section(card, "Results")


def test_the_card_has_no_path_of_this_machine(tmp_path, write_run):
    card, _ = write_card(write_run(tmp_path / "fold1", pretrained_encoder="/home/someone/encoder", command="/home/x"))
    assert "/home" not in card and str(tmp_path) not in card
    assert "an encoder, of which nothing else is known" in card


def test_without_a_run_no_results_are_known(model):
    card, data = write_card(model)
    assert "The results of this model are unknown." in card and "The training is unknown." in card
    assert data.eval_results is None and data.license == "unknown" and data.language is None
    assert not re.findall(r"\d+\.\d+ ", section(card, "Results"))


def test_results_of_another_model_are_not_taken(tmp_path, write_run):
    card, _ = write_card(write_run(tmp_path / "fold1", labels=["one", "two", "three"]))
    assert "results of this model are unknown" in card


def test_the_card_of_a_speaker_encoder_is_about_speakers(tmp_path, model):
    folder = model.rename(tmp_path / "encoder")
    metrics = {"corpus": "voices", "synthetic": False, "seed": 1, "speakers": 3, "n_train": 50, "trials": 100}
    metrics |= {"eer": 0.0484, "accuracy": 0.93388, "epochs": 4, "best_epoch": 4, "versions": {}}
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    card, data = write_card(folder)
    assert "It does not predict emotions" in card and "4.8 %" in card and "93.4 %" in card
    assert [(one.metric_type, one.metric_value) for one in data.eval_results] == [("eer", 0.0484)]
    assert "--pretrained_encoder user/name" in card and "AI Act" not in card and data.pipeline_tag is None
    (tmp_path / "metrics.json").unlink()
    assert "It does not predict emotions" in write_card(folder)[0]


def test_distortions_are_told_or_said_to_be_untested(tmp_path, write_run):
    model = write_run(tmp_path / "fold1")
    assert "Distortions, such as noise, telephones, compression and rooms, were not tested" in write_card(model)[0]
    measured = {"value": 0.512, "low": 0.4, "high": 0.65}
    row = {"distortion": "babble, 0 dB", "accuracy": measured, "uar": measured, "changed": measured}
    checksum = load_plain(model, device="cpu").checksum
    result = {"utterances": 9, "speakers": 3, "corpus": "ravdess", "models": [checksum], "stress": [row]}
    (model / "stress.json").write_text(json.dumps(result))
    card, _ = write_card(model)
    cells = ["babble, 0 dB", *["51.2 [40.0, 65.0]"] * 3]
    assert cells in rows(section(card, "Results")) and "were not tested, and neither" not in card
    assert "On 9 utterances of 3 speakers of RAVDESS" in card
    for wrong, message in [
        ({**result, "models": ["0"]}, "is of another model; write it again"),
        ({**result, "stress": []}, "is no result of --stress; write it again"),
        ({"accuracy": 1}, "is no result of --stress"),
    ]:
        (model / "stress.json").write_text(json.dumps(wrong))
        with pytest.raises(InputError, match=message):
            write_card(model)


def test_its_blocks_name_the_branch(model):
    card, data = write_card(model, revision="v1")
    assert card.count('revision="v1"') == 2 and "speechbrain" in data.tags and data.library_name == "speechbrain"
