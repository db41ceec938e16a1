"""Weights from another run: what fits is loaded, and all is told by name."""

import json
import os
from pathlib import Path

import huggingface_hub
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from ser_plugins import GhostVLAD, SEResNet34, UtteranceEncoder, configuration
from ser_plugins.errors import InputError
from ser_plugins.model_folder.saving import CHECKPOINT, inference_yaml
from ser_plugins.training.lineage import history
from ser_plugins.training.transfer import check_features, check_unheard, locate, transfer

HPARAMS = Path(__file__).parents[2] / "hparams"
ASSIGNMENT = ["pooling.assignment.weight", "pooling.assignment.bias"]


def make(seed, clusters=3, ghosts=0, embedding_size=6, channels=(4, 4, 8, 8)):
    torch.manual_seed(seed)
    encoder = UtteranceEncoder(SEResNet34(channels), GhostVLAD(channels[-1], clusters, ghosts), embedding_size)
    for module in encoder.modules():
        if isinstance(module, torch.nn.modules.batchnorm._NormBase):
            module.running_mean.normal_()
            module.num_batches_tracked.fill_(seed)
    torch.nn.init.normal_(encoder.pooling.assignment.bias)
    return encoder


def copy_of(encoder):
    return {name: weight.clone() for name, weight in encoder.state_dict().items()}


def equal(one, other, names):
    return all(torch.equal(one[name], other[name]) for name in names)


@pytest.fixture
def save(tmp_path):
    def write(weights, name=CHECKPOINT):
        torch.save(weights, tmp_path / name)
        return str(tmp_path / name)

    return write


@pytest.mark.parametrize("as_folder", [True, False])
def test_the_same_network_takes_all(save, as_folder):
    source, encoder = make(1).state_dict(), make(2)
    path = save(source)
    report = transfer(encoder, os.path.dirname(path) if as_folder else path)
    assert report == {"matched": list(source), "partial": [], "missing": [], "unexpected": [], "shape": []}
    assert equal(encoder.state_dict(), source, source)


def test_what_does_not_fit_is_told_by_name_and_stays(save):
    source, encoder = copy_of(make(1, embedding_size=9)), make(2)
    del source["backbone.stem.weight"], source["pooling.centres"]
    source["head.weight"], source["head.bias"] = torch.zeros(2, 2), torch.zeros(2)
    before = copy_of(encoder)
    report = transfer(encoder, save(source))
    of_embedding = ["embedding.weight", *(f"norm.{name}" for name in ("weight", "bias", "running_mean", "running_var"))]
    assert report["missing"] == ["backbone.stem.weight", "pooling.centres"]
    assert report["unexpected"] == ["head.bias", "head.weight"]
    assert report["shape"] == of_embedding
    assert report["partial"] == []
    stays = report["missing"] + report["shape"]
    assert sorted(report["matched"] + stays) == sorted(before)
    assert equal(encoder.state_dict(), before, stays)
    assert equal(encoder.state_dict(), source, report["matched"])


def test_what_does_not_fit_is_logged(save, caplog):
    source = copy_of(make(1))
    del source["embedding.weight"]
    with caplog.at_level("INFO"):
        transfer(make(2), save(source))
    assert "1 weights missing, and start fresh: ['embedding.weight']" in caplog.text


@pytest.mark.parametrize(("given", "own"), [(0, 2), (2, 0), (1, 3)])
def test_clusters_are_kept_and_new_ghosts_start_fresh(save, given, own):
    source, encoder = make(1, ghosts=given).state_dict(), make(2, ghosts=own)
    before = copy_of(encoder)
    report = transfer(encoder, save(source))
    assert report["partial"] == ASSIGNMENT and not report["missing"] + report["unexpected"] + report["shape"]
    after, kept = encoder.state_dict(), 3 + min(given, own)
    assert torch.equal(after["pooling.centres"], source["pooling.centres"])
    for name in ASSIGNMENT:
        assert torch.equal(after[name][:kept], source[name][:kept])
        assert torch.equal(after[name][kept:], before[name][kept:])


def test_another_number_of_clusters_carries_none_over(save):
    """Five clusters without ghosts have as many rows as three with two, and mean something else."""
    encoder = make(2, clusters=3, ghosts=3)
    before = copy_of(encoder)
    report = transfer(encoder, save(make(1, clusters=5).state_dict()))
    assert report["partial"] == []
    assert report["shape"] == ["pooling.centres", *ASSIGNMENT, "embedding.weight"]
    assert equal(encoder.state_dict(), before, report["shape"])


@pytest.mark.parametrize("weights", [{}, {"weight": torch.zeros(2, 2)}, make(1, channels=(2, 2, 2, 2)).state_dict()])
def test_a_checkpoint_of_another_network_is_refused(save, weights):
    kept = ("num_batches_tracked",)
    weights = {name: weight for name, weight in weights.items() if not name.endswith(kept) and "norm." not in name}
    with pytest.raises(InputError, match=r"no weight of .*\.ckpt fits this encoder"):
        transfer(make(2), save(weights))


@pytest.mark.parametrize(
    "content",
    [torch.zeros(3), [1, 2], 5, {"embedding.weight": 5}, {"model": {"embedding.weight": torch.zeros(1)}}],
    ids=["tensor", "list", "number", "numbers", "nested"],
)
def test_what_is_no_state_dict_is_refused(save, content):
    with pytest.raises(InputError, match=r"\.ckpt"):
        transfer(make(2), save(content))


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 half of one"])
def test_what_is_no_checkpoint_is_refused(tmp_path, content):
    (tmp_path / CHECKPOINT).write_bytes(content)
    with pytest.raises(InputError, match=rf"{CHECKPOINT} is not a checkpoint of weights"):
        transfer(make(2), str(tmp_path))


class Code:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_pickle_with_code_is_refused_and_not_run(save, tmp_path):
    path = save({**make(1).state_dict(), "code": Code(tmp_path / "proof")})
    with pytest.raises(InputError, match="is not a checkpoint of weights"):
        transfer(make(2), path)
    assert not (tmp_path / "proof").exists()
    torch.load(path, weights_only=False)
    assert (tmp_path / "proof").exists()


def test_a_folder_without_an_encoder_is_told(tmp_path):
    (tmp_path / "classifier.ckpt").touch()
    with pytest.raises(InputError, match=rf"holds no {CHECKPOINT}; give the encoder/ or model/ folder"):
        locate(str(tmp_path))


@pytest.mark.parametrize("source", ["nowhere", "a/b/c", "./encoder", "/no/such/folder", "/nowhere", "a b/c", "user/"])
def test_a_source_that_cannot_be_is_told(source):
    with pytest.raises(InputError, match="Hub"):
        locate(source)


def test_a_hub_id_is_fetched(save, monkeypatch):
    folder = os.path.dirname(save(make(1).state_dict()))
    asked = []
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **options: asked.append(options) or folder)
    assert transfer(make(2), "user/name")["missing"] == []
    assert asked == [{"revision": None, "allow_patterns": [CHECKPOINT, "hyperparams.yaml"]}]


def test_a_hub_that_does_not_answer_is_told_in_one_line(monkeypatch):
    def fail(*_, **__):
        raise OSError("no connection\nand more")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(InputError, match=r"no folder user/name, and the Hub does not give it either: no connection$"):
        locate("user/name")


def test_other_features_than_those_of_the_encoder_are_told(tmp_path):
    given, checkpoint = configuration.read(HPARAMS / "s3.yaml"), tmp_path / CHECKPOINT
    check_features(given, checkpoint)  # it does not say what it was trained on
    text = inference_yaml(configuration.resolve(given))
    (tmp_path / "hyperparams.yaml").write_text(text)
    check_features(given, checkpoint)
    with pytest.raises(InputError, match=r"mean_var_norm .*'axis': 'utterance'.* this run has .*'axis': 'bin'"):
        check_features({**given, "norm_axis": "bin"}, checkpoint)


def test_safetensors_are_read(tmp_path):
    given, encoder = make(1), make(2)
    save_file({name: weight.contiguous() for name, weight in given.state_dict().items()}, tmp_path / "own.safetensors")
    report = transfer(encoder, str(tmp_path / "own.safetensors"))
    assert sorted(report["matched"]) == sorted(given.state_dict())
    for name, weight in given.state_dict().items():
        torch.testing.assert_close(encoder.state_dict()[name], weight, rtol=0, atol=0)


def write_run(run, **facts):
    """What tells what a run was trained on: of folds blocks 1 to 4, an utterance and a speaker each."""
    run.mkdir(parents=True)
    (run / "metrics.json").write_text(json.dumps(facts))
    table = "".join(f"{block},s{block},happy,{block}\n" for block in range(1, 5))
    run.with_name("folds.csv").write_text(f"id,speaker,emotion,block\n{table}")
    model = run / ("encoder" if "eer" in facts else "model")
    model.mkdir()
    (model / CHECKPOINT).touch()
    (model / "config.json").write_text(json.dumps({"labels": ["s1", "s2"], "modules": {}}))
    return model / CHECKPOINT


@pytest.fixture
def chain(tmp_path):
    """The encoder of a run on TWO that began with one on ONE, that with speakers of VOICES."""
    results = tmp_path / "results"
    write_run(results / "voices" / "1", corpus="voices", eer=0.1)
    begun = "results/voices/1/encoder/embedding_model.ckpt"
    write_run(results / "one" / "fold2", corpus="one", fold=2, pretrained_encoder=begun)
    return write_run(results / "two" / "fold2", corpus="two", fold=2, pretrained_encoder="results/one/fold2/model")


def utterances(*names):
    """As corpus-number: utterance 3 is speaker 3's."""
    return pd.DataFrame({"id": names, "speaker": [name.replace("-", "-s") for name in names]})


KNOWN = [
    ({"two-2", "two-3", "one-2", "one-3", "three-1", "voices-3"}, None, None),  # what fold 2 holds out of both
    ({"two-1", "two-2"}, "1 utterances .* two-1", "two/fold2"),
    ({"one-4", "one-1", "one-3"}, "2 utterances .* one-1", "one/fold2"),
    ({"voices-2", "voices-3"}, "1 utterances .* voices-2", "voices/1"),
]


@pytest.mark.parametrize(("held_out", "known", "where"), KNOWN)
@pytest.mark.parametrize("linked", [False, True])
def test_all_runs_that_led_to_an_encoder_are_asked_what_they_know(chain, held_out, known, where, linked):
    results = chain.parents[3]
    if linked:
        results.rename(results.with_name("disk"))
        results.symlink_to("disk")
    if known is None:
        check_unheard(chain, utterances(*held_out))
    else:
        with pytest.raises(InputError, match=f"trained on {known} .* in .*{where}; give that of the same fold"):
            check_unheard(chain, utterances(*held_out))


def test_the_first_stage_of_a_fold_is_asked_whose_voices_it_learnt(tmp_path):
    stage = tmp_path / "S3" / "one" / "1" / "fold2" / "speakers"
    (stage / "encoder").mkdir(parents=True)
    encoder = stage / "encoder" / CHECKPOINT
    encoder.touch()
    (stage / "hyperparams.yaml").write_text("corpus: one\ncolumn: speaker\nlabels: [s1, s2]\n")
    later = write_run(tmp_path / "later" / "fold1", corpus="two", fold=1, pretrained_encoder=str(encoder.parent))
    for checkpoint in (encoder, later):
        check_unheard(checkpoint, utterances("one-3", "two-2"))
        with pytest.raises(InputError, match=r"1 utterances .* one-2 among them, in .*fold2/speakers; give that of"):
            check_unheard(checkpoint, utterances("one-3", "one-2"))
    (stage / "hyperparams.yaml").write_text("corpus: both\ncolumn: speaker\nlabels: [one-s1, one-s2]\n")
    with pytest.raises(InputError, match=r"1 utterances .* one-2"):
        check_unheard(encoder, utterances("one-3", "one-2"))


def test_of_merged_corpora_each_has_its_name(tmp_path):
    encoder = write_run(tmp_path / "pretrain" / "both" / "1", corpus="one+two", eer=0.1)
    (encoder.parent / "config.json").write_text(json.dumps({"labels": ["one-s1", "two-s1"], "modules": {}}))
    check_unheard(encoder, utterances("one-2", "both-1", "s-1"))
    with pytest.raises(InputError, match=r"1 utterances .* two-1"):
        check_unheard(encoder, utterances("two-1", "one-2"))


def test_a_folder_of_the_name_of_the_first_weights_is_not_taken_for_them(tmp_path, monkeypatch):
    """A run that began with ./model has a model of its own; one that is said to have begun with itself has an end."""
    monkeypatch.chdir(tmp_path)
    model = write_run(tmp_path / "results" / "S5" / "fold1", corpus="one", fold=1, pretrained_encoder="model").parent
    assert [run.folder for run in history(model).runs] == [model.parent]
    (tmp_path / "model").symlink_to(model)
    assert [run.folder for run in history(Path("model")).runs] == [model.parent]


def test_of_an_encoder_without_its_run_nothing_is_known(save):
    check_unheard(Path(save({})), utterances("one-1"))


def test_a_run_that_cannot_be_read_is_named(chain):
    damaged = chain.parents[3] / "one" / "fold2" / "metrics.json"
    damaged.write_text('{"corpus": ')
    with pytest.raises(InputError, match=r"one/fold2/metrics.json cannot be read; delete its folder, and train anew"):
        check_unheard(chain, utterances("two-3"))
