"""Weights from another run: what fits is loaded, and each name is reported."""

import os
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import save_file

from ser_plugins import GhostVLAD, SEResNet34, UtteranceEncoder, configuration
from ser_plugins.errors import InputError
from ser_plugins.model_folder.saving import CHECKPOINT, WEIGHTS, inference_yaml
from ser_plugins.training.transfer import MADE_BY, check_features, find_weights, transfer

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
    assert "1 weights missing, and keep their initial values: ['embedding.weight']" in caplog.text


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
        find_weights(str(tmp_path))


@pytest.mark.parametrize("source", ["nowhere", "a/b/c", "./encoder", "/no/such/folder", "/nowhere", "a b/c", "user/"])
def test_a_source_that_cannot_be_is_told(source):
    with pytest.raises(InputError, match="Hub"):
        find_weights(source)


def test_a_hub_id_is_fetched(save, monkeypatch):
    folder = os.path.dirname(save(make(1).state_dict()))
    asked = []
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **options: asked.append(options) or folder)
    assert transfer(make(2), "user/name")["missing"] == []
    assert asked == [{"revision": None, "allow_patterns": [CHECKPOINT, WEIGHTS, "hyperparams.yaml", "lineage.json"]}]


def test_a_hub_that_does_not_answer_is_told_in_one_line(monkeypatch):
    def fail(*_, **__):
        raise OSError("no connection\nand more")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(InputError, match=r"no folder user/name, and it cannot be downloaded .*: no connection$"):
        find_weights("user/name")


def test_other_features_than_those_of_the_encoder_are_an_error(tmp_path, caplog):
    given, checkpoint = configuration.compose("s3", "synthetic"), tmp_path / CHECKPOINT
    check_features(given, checkpoint)  # nothing is recorded
    (tmp_path / "hyperparams.yaml").write_text(inference_yaml(configuration.resolve(given)))
    check_features(given, checkpoint)
    with pytest.raises(InputError, match=r"compute_features .*'log': True.* this run has .*'log': False"):
        check_features({**given, "log_magnitude": False}, checkpoint)
    check_features({**given, "norm_axis": "bin"}, checkpoint)
    assert "was trained with mean_var_norm" in caplog.text


def test_safetensors_are_read(tmp_path):
    given, encoder = make(1), make(2)
    save_file({name: weight.contiguous() for name, weight in given.state_dict().items()}, tmp_path / "own.safetensors")
    report = transfer(encoder, str(tmp_path / "own.safetensors"))
    assert sorted(report["matched"]) == sorted(given.state_dict())
    for name, weight in given.state_dict().items():
        torch.testing.assert_close(encoder.state_dict()[name], weight, rtol=0, atol=0)


def test_weights_of_a_whole_model_lose_their_prefix(tmp_path):
    given, encoder = make(1), make(2)
    weights = {f"embedding_model.{name}": weight.contiguous() for name, weight in given.state_dict().items()}
    save_file({**weights, "classifier.linear.weight": torch.zeros(2, 2)}, tmp_path / WEIGHTS)
    assert find_weights(str(tmp_path)) == tmp_path / WEIGHTS
    report = transfer(encoder, str(tmp_path))
    assert sorted(report["matched"]) == sorted(given.state_dict()) and not report["unexpected"]


def test_a_folder_that_a_preset_names_is_not_sought_on_the_hub(monkeypatch, tmp_path):
    named = {configuration.read(file)["pretrained_encoder"] for file in HPARAMS.glob("*.yaml")}
    named -= {"none", "builtin"}
    assert named == set(MADE_BY) and "pretrained/campplus" in named
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", None)
    for source in named:
        with pytest.raises(InputError, match=rf"there is no folder {source}; make it by python recipes/\w+.py"):
            find_weights(source)
