"""The converted encoder against the original network, written plainly from the arrays of a Keras file."""

import copy
import runpy
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import yaml
from torch.nn import functional

from ser_plugins import CAMPPlus, StatisticsPooling, UtteranceEncoder, configuration
from ser_plugins.errors import InputError
from ser_plugins.model_folder import convert
from ser_plugins.model_folder.lineage import LINEAGE, read_lineage
from ser_plugins.model_folder.saving import CHECKPOINT
from ser_plugins.training.transfer import transfer

ROOT = Path(__file__).parents[2]
# Stage, its blocks, channels before, inside and behind.
STAGES = ((2, "ab", 64, 48, 96), (3, "abc", 96, 96, 128), (4, "abc", 128, 128, 256), (5, "abc", 256, 256, 512))


def random_arrays():
    """Arrays of the names and shapes of weights.h5, in their order."""
    rng, arrays = np.random.default_rng(0), {}

    def draw(name, *shape):
        scale = np.sqrt(2 / np.prod(shape[:-1])) if len(shape) > 1 else 0.3
        arrays[name] = rng.normal(0, scale, shape).astype(np.float32)

    def convolution(name, *shape):
        draw(f"{name}/kernel", *shape)
        arrays[f"{name}/bn/gamma"] = rng.uniform(0.5, 1, shape[-1]).astype(np.float32)
        draw(f"{name}/bn/beta", shape[-1])
        draw(f"{name}/bn/moving_mean", shape[-1])
        arrays[f"{name}/bn/moving_variance"] = rng.uniform(0.5, 2, shape[-1]).astype(np.float32)

    convolution("conv1_1/3x3_s1", 7, 7, 1, 64)
    for stage, letters, before, inner, outer in STAGES:
        for letter in letters:
            inputs, name = before if letter == "a" else outer, f"conv{stage}_{letter}"
            convolution(f"{name}_1x1_reduce", 1, 1, inputs, inner)
            convolution(f"{name}_3x3", 3, 3, inner, inner)
            convolution(f"{name}_1x1_increase", 1, 1, inner, outer)
            if letter == "a":
                convolution(f"{name}_1x1_proj", 1, 1, inputs, outer)
    draw("x_fc/kernel", 7, 1, 512, 512)
    draw("x_fc/bias", 512)
    draw("gvlad_center_assignment/kernel", 7, 1, 512, 10)
    draw("gvlad_center_assignment/bias", 10)
    draw("gvlad_pool/centers", 10, 512)
    draw("fc6/kernel", 4096, 512)
    draw("fc6/bias", 512)
    return arrays


def write_keras(path, arrays, group="/"):
    """Write arrays as Keras does: names as attributes, layers without weights among them."""
    layers = {"input_1": [], "activation_1": []}
    for name in arrays:
        layers.setdefault(name.rsplit("/", 1)[0], []).append(f"{name}:0")
    with h5py.File(path, "w") as file:
        root = file.require_group(group)
        root.attrs["layer_names"] = [layer.encode() for layer in layers]
        for layer, names in layers.items():
            own = root.require_group(layer)
            own.attrs["weight_names"] = [name.encode() for name in names]
            for name in names:
                own.create_dataset(name, data=arrays[name.removesuffix(":0")])
    return path


def original(arrays, x):
    """What the layers of the original give for [B, 1, 257, T]: mpool2, x_fc, assignment, V before its norm, fc6."""
    weights = {name: torch.from_numpy(array).double() for name, array in arrays.items()}

    def convolution(name, x, stride=1, padding=0):
        bias = weights.get(f"{name}/bias")
        return functional.conv2d(x, weights[f"{name}/kernel"].permute(3, 2, 0, 1), bias, stride, padding)

    def normalised(name, x, stride=1, padding=0):
        gamma, beta, mean, var = (
            weights[f"{name}/bn/{v}"] for v in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        return functional.batch_norm(convolution(name, x, stride, padding), mean, var, gamma, beta, eps=1e-3)

    x = functional.max_pool2d(normalised("conv1_1/3x3_s1", x, padding=3).relu(), 2)
    for stage, letters, *_ in STAGES:
        for letter in letters:
            name, first = f"conv{stage}_{letter}", letter == "a"
            stride = 2 if first and stage > 2 else 1
            out = normalised(f"{name}_1x1_reduce", x, stride).relu()
            out = normalised(f"{name}_3x3", out, padding=1).relu()
            out = normalised(f"{name}_1x1_increase", out)
            x = (out + (normalised(f"{name}_1x1_proj", x, stride) if first else x)).relu()
    mpool2 = functional.max_pool2d(x, (3, 1), (2, 1))
    x_fc = convolution("x_fc", mpool2).relu().squeeze(2)
    scores = convolution("gvlad_center_assignment", mpool2).squeeze(2)
    shares = scores.softmax(1)
    residuals = x_fc[:, None] - weights["gvlad_pool/centers"][None, :, :, None]
    vlad = (shares[:, :, None] * residuals).sum(-1)[:, :8]
    normed = vlad * vlad.square().sum(-1, keepdim=True).clamp(min=1e-12).rsqrt()
    fc6 = normed.flatten(1) @ weights["fc6/kernel"] + weights["fc6/bias"]
    return mpool2, x_fc, scores, vlad, fc6.relu()


def off(found, expected):
    """The greatest difference, relative to the greatest value."""
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.fixture(scope="module")
def arrays():
    return random_arrays()


@pytest.fixture(scope="module")
def weights(arrays, tmp_path_factory):
    return write_keras(tmp_path_factory.mktemp("keras") / "weights.h5", arrays)


@pytest.fixture(scope="module")
def folder(weights, tmp_path_factory):
    folder = tmp_path_factory.mktemp("converted") / "new" / "vgg"
    assert not convert.convert_vgg(weights, folder)
    return folder


@pytest.fixture
def encoder():
    """The encoder of the recipe, not yet filled."""
    return configuration.build(configuration.compose("s5_thin", "synthetic"))["embedding_model"]


def test_the_arrays_are_as_many_as_of_the_published_file(arrays):
    assert len(arrays) == 197
    assert sum(array.size for array in arrays.values()) == 7_678_410


@pytest.mark.parametrize("frames", [250, 299])
@torch.no_grad()
def test_the_encoder_is_the_original(arrays, frames):
    converted = convert.vgg_encoder(arrays, "").double()
    feats = torch.randn(1, frames, 257, dtype=torch.float64)
    mpool2, x_fc, scores, _, fc6 = original(arrays, feats.transpose(1, 2)[:, None])
    assert mpool2.shape == (1, 512, 7, {250: 16, 299: 19}[frames])
    descriptors, lengths = converted.backbone(feats)
    assert lengths.tolist() == [1]
    assert off(descriptors, mpool2.permute(0, 3, 2, 1).flatten(2)) < 1e-12
    assert off(converted.pooling.projection(descriptors).relu(), x_fc.transpose(1, 2)) < 1e-12
    assert off(converted.pooling.assignment(descriptors), scores.transpose(1, 2)) < 1e-12
    # fc6 passes a normalisation whose variance, kept in single precision, is one but for some 1e-8.
    assert off(converted(feats).relu()[:, 0], fc6) < 1e-6
    assert fc6.count_nonzero() > fc6.numel() / 10 and scores.softmax(1).amax(1).min() < 0.9
    single = copy.deepcopy(converted).float()(feats.float()).relu()[:, 0]
    assert off(single.double(), fc6) < 1e-5


@torch.no_grad()
def test_clusters_that_attract_nothing_are_those_of_the_original(arrays):
    name = "gvlad_center_assignment/kernel"
    arrays = {**arrays, name: 20 * arrays[name]}
    feats = torch.randn(3, 90, 257, dtype=torch.float64)
    *_, vlad, fc6 = original(arrays, feats.transpose(1, 2)[:, None])
    lengths = vlad.norm(dim=-1)
    assert (lengths < 1e-7).any() and (lengths > 1).any()
    assert off(convert.vgg_encoder(arrays, "").double()(feats).relu()[:, 0], fc6) < 1e-6


def test_all_of_the_folder_goes_into_the_encoder_of_the_recipe(arrays, folder, encoder):
    report = transfer(encoder, str(folder))
    assert report.pop("matched") == list(encoder.state_dict()) and not any(report.values())
    expected = convert.vgg_encoder(arrays, "").state_dict()
    assert all(torch.equal(weight, expected[name]) for name, weight in encoder.state_dict().items())


def test_the_encoder_trains_on(arrays):
    converted = convert.vgg_encoder(arrays, "").train()
    feats, target = torch.randn(4, 33, 257), torch.randn(4, 1, 512)
    optimizer = torch.optim.Adam(converted.parameters(), 1e-3)
    losses = []
    for _ in range(3):
        loss = (converted(feats) - target).square().mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        assert all(weight.grad is not None and weight.grad.any() for weight in converted.parameters())
        optimizer.step()
    assert losses[0] > losses[1] > losses[2]


def test_a_saved_model_holds_the_same(arrays, folder, tmp_path):
    saved = write_keras(tmp_path / "model.h5", arrays, "model_weights")
    with h5py.File(saved, "a") as file:
        file.create_dataset("optimizer_weights/Adam/iterations:0", data=7)
    convert.convert_vgg(saved, tmp_path)
    assert (tmp_path / CHECKPOINT).read_bytes() == (folder / CHECKPOINT).read_bytes()


def test_names_are_those_of_the_layer_in_whatever_scope(arrays, weights, tmp_path):
    """TensorFlow may number a scope; Keras 3 leaves out the output."""
    other = tmp_path / "weights.h5"
    other.write_bytes(weights.read_bytes())
    with h5py.File(other, "a") as file:
        file["fc6"].move("fc6/kernel:0", "fc6_1/kernel")
        file["fc6"].attrs["weight_names"] = ["fc6_1/kernel", "fc6/bias:0"]
    found = convert.read_arrays(other.read_bytes(), "")
    assert found.keys() == arrays.keys()
    assert all(np.array_equal(array, arrays[name]) for name, array in found.items())


def without(arrays, name):
    return {other: array for other, array in arrays.items() if other != name}


@pytest.mark.parametrize("name", ["conv1_1/3x3_s1/bn/gamma", "conv4_c_3x3/kernel", "gvlad_pool/centers", "fc6/bias"])
def test_an_array_that_is_missing_is_named(arrays, tmp_path, name):
    path = write_keras(tmp_path / "weights.h5", without(arrays, name))
    with pytest.raises(InputError, match=rf"weights\.h5 lacks the array {name}; give the weights\.h5 of https"):
        convert.convert_vgg(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_array_too_many_is_named(arrays, tmp_path):
    path = write_keras(tmp_path / "w.h5", {**arrays, "prediction/kernel": np.zeros((512, 5994), np.float32)})
    with pytest.raises(
        InputError, match=r"w\.h5 holds the array prediction/kernel, which the network does not have; g"
    ):
        convert.convert_vgg(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("conv1_1/3x3_s1/kernel", "(7, 7, 1, 64)"),
        ("conv5_a_1x1_proj/bn/moving_variance", "(512,)"),
        ("x_fc/kernel", "(7, 1, 512, 512)"),
        ("gvlad_center_assignment/bias", "(10,)"),
        ("gvlad_pool/centers", "(10, 512)"),
        ("fc6/kernel", "(4096, 512)"),
    ],
)
def test_an_array_of_another_shape_is_named(arrays, name, shape):
    changed = {**arrays, name: arrays[name][:-1]}
    with pytest.raises(InputError) as caught:
        convert.vgg_encoder(changed, "own.h5")
    assert f"own.h5: array {name} is {changed[name].shape} of float32, not {shape} of floats; give" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no such format", b"\x89HDF\r\n\x1a\n half of one"])
def test_other_files_than_keras_are_an_error_of_one_line(tmp_path, content):
    path = tmp_path / "weights.h5"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"weights\.h5 is not a complete file of Keras' weights .*; give") as caught:
        convert.convert_vgg(path, tmp_path)
    assert "\n" not in str(caught.value)


def test_damage_is_an_error_of_one_line(weights, tmp_path):
    path = tmp_path / "weights.h5"
    path.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(InputError, match="not a complete file"):
        convert.convert_vgg(path, tmp_path)
    path.write_bytes(weights.read_bytes())
    with h5py.File(path, "a") as file:
        del file["x_fc/x_fc/bias:0"]
    with pytest.raises(InputError, match=r"lacks the array x_fc/bias; give"):
        convert.convert_vgg(path, tmp_path)
    with h5py.File(path, "a") as file:
        file["x_fc/x_fc/bias:0"] = np.arange(512)
    with pytest.raises(InputError, match=r"array x_fc/bias is \(512,\) of int64, not \(512,\) of floats"):
        convert.convert_vgg(path, tmp_path)
    with h5py.File(path, "w") as file:
        file["weights"] = np.zeros(3)
    with pytest.raises(InputError, match="layer_names"):
        convert.convert_vgg(path, tmp_path)
    with pytest.raises(InputError, match=r"cannot read .*none\.h5 \(No such file or directory\); give"):
        convert.convert_vgg(tmp_path / "none.h5", tmp_path)


def test_a_missing_library_is_named(weights, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(InputError, match="pip install h5py"):
        convert.convert_vgg(weights, tmp_path)


def test_the_note_says_what_it_is_made_from(weights, folder, tmp_path, monkeypatch):
    words = ["git", "hash-object", str(weights)]
    blob = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    note = yaml.safe_load((folder / convert.NOTE).read_text())
    assert (note["file"], note["git_blob"], note["genuine"]) == ("weights.h5", blob, False)
    assert "not the published file" in note["source"] and note["licence"] == "unknown"
    monkeypatch.setattr(convert, "PUBLISHED", blob)
    assert convert.convert_vgg(weights, tmp_path)
    note = yaml.safe_load((tmp_path / convert.NOTE).read_text())
    (record,) = read_lineage(tmp_path / CHECKPOINT)
    assert record.corpus == "VoxCeleb2" and record.licence == note["licence"] and record.start == "none"
    assert note["genuine"] and "CC BY 4.0" in note["licence"] and note["source"] == convert.URL


def test_the_command_converts_again_and_names_what_it_did(weights, folder, tmp_path, monkeypatch, capsys):
    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["convert.py", "vgg", *map(str, arguments)])
        runpy.run_path(str(ROOT / "recipes" / "convert.py"), run_name="__main__")

    for _ in range(2):
        command(weights, tmp_path)
        printed = capsys.readouterr()
        assert "NOT the published file" in printed.out and f"--pretrained_encoder {tmp_path}" in printed.out
        assert {path.name for path in tmp_path.iterdir()} == {CHECKPOINT, convert.NOTE, LINEAGE}
        for name in (CHECKPOINT, convert.NOTE):
            assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
    with pytest.raises(SystemExit, match=r"^error: cannot read .*none\.h5"):
        command(tmp_path / "none.h5", tmp_path)


def test_campplus_is_converted_with_its_origin(tmp_path):
    torch.manual_seed(0)
    state = CAMPPlus(block=None).state_dict()
    torch.save(state, tmp_path / "own.pt")
    assert not convert.convert_campplus(tmp_path / "own.pt", tmp_path / "out")
    encoder = UtteranceEncoder(CAMPPlus(block=2), StatisticsPooling(), None)
    report = transfer(encoder, str(tmp_path / "out"))
    assert not report["missing"] + report["shape"] and len(report["matched"]) > 500
    for name, weight in encoder.backbone.state_dict().items():
        assert torch.equal(weight, state[name]), name
    assert read_lineage(tmp_path / "out" / CHECKPOINT)[0].strategy == "weights of unknown origin"
    assert yaml.safe_load((tmp_path / "out" / "source.yaml").read_text())["genuine"] is False


@pytest.mark.parametrize("content", [b"", b"no pickle", None])
def test_what_is_no_campplus_is_one_line(tmp_path, content):
    file = tmp_path / "own.pt"
    if content is None:
        torch.save({"head.conv1.weight": torch.zeros(1)}, file)
    else:
        file.write_bytes(content)
    with pytest.raises(InputError, match=r"no PyTorch state dict|not the weights of a CAM\+\+"):
        convert.convert_campplus(file, tmp_path / "out")
