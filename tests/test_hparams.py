"""The presets: the five strategies differ in what the paper says; every preset builds, and each of its keys is used."""

import re
from pathlib import Path

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml

from ser_plugins import EmotionConstrainedTripletLoss, SoftmaxClassifier, SVMClassifier, TripletLoss, configuration

ROOT = Path(__file__).parents[1]
STRATEGIES = ["s1", "s2", "s3", "s4", "s5"]
PRESETS = sorted(file.stem for file in configuration.HPARAMS.glob("*.yaml"))
BASES = {"base", "emotion", "speaker", "teacher"}


def compose(name, **changes):
    return configuration.compose(name, "synthetic", changes)


def plain(tree):
    return configuration.plain(configuration.resolve(tree))


def changed(one, other):
    one, other = plain(compose(one)), plain(compose(other))
    return {key for key in {*one, *other} if one.get(key, ...) != other.get(key, ...)} - {"strategy"}


@pytest.fixture(scope="module")
def built():
    return {name: configuration.build(compose(name)) for name in STRATEGIES}


def test_each_strategy_differs_from_the_one_before_in_what_the_paper_says():
    assert changed("s1", "s2") == {"pretrained_encoder"}
    assert changed("s2", "s3") == {"ghost_clusters", "embedding_model"}
    classes = {"metric_loss", "classifier", "alpha", "fit_passes", "classification_share"}
    assert changed("s3", "s4") == classes
    assert changed("s4", "s5") == {"metric_loss", "beta", "polarity"}


def test_what_changes_is_as_the_paper_says(built):
    assert [built[name]["strategy"] for name in STRATEGIES] == ["S1", "S2", "S3", "S4", "S5"]
    assert [built[name]["pretrained_encoder"] for name in STRATEGIES] == ["none"] + 4 * ["builtin"]
    assert [built[name]["embedding_model"].pooling.ghost_clusters for name in STRATEGIES] == [0, 0, 2, 2, 2]
    losses = [type(None)] * 3 + [TripletLoss, EmotionConstrainedTripletLoss]
    assert [type(built[name]["metric_loss"]) for name in STRATEGIES] == losses
    classifiers = [SoftmaxClassifier] * 3 + [SVMClassifier] * 2
    assert [type(built[name]["classifier"]) for name in STRATEGIES] == classifiers
    assert built["s4"]["metric_loss"].margin == 0.1
    assert (built["s5"]["metric_loss"].alpha, built["s5"]["metric_loss"].beta) == (0.1, 0.15)


def test_margins_are_keys_of_the_strategies_that_use_them():
    loss = configuration.build(compose("s5", alpha=0.3, beta=0.4))["metric_loss"]
    assert (loss.alpha, loss.beta) == (0.3, 0.4)
    assert not {"alpha", "beta"} & set(compose("s1")) and "beta" not in compose("s4")


@pytest.mark.parametrize("name", STRATEGIES)
def test_what_is_shared_is_as_the_paper_says(built, name):
    made = built[name]
    assert (made["lr"], made["batch_size"], made["n_folds"]) == (0.001, 32, 10)
    optimizer = made["opt_class"]([torch.nn.Parameter(torch.zeros(1))])
    assert isinstance(optimizer, torch.optim.Adam) and optimizer.defaults["lr"] == 0.001
    assert made["n_classes"] == len(made["labels"]) == 8 and made["embedding_size"] == 512
    spectrogram = made["compute_features"]
    assert (spectrogram.win, spectrogram.hop, spectrogram.n_fft) == (512, 160, 512)


@pytest.mark.parametrize("name", sorted(set(PRESETS) - BASES - {"bhavan", "chi", "ghaleb", "issa"}))
@torch.no_grad()
def test_every_preset_is_plain_hyperpyyaml_whose_parts_fit_together(name, write_ssl, tmp_path):
    corpus = "synthetic" if "pretrain" not in name else "speakers"
    tree = configuration.compose(name, corpus)
    if "ssl_source" in tree:
        frames = {"conv_kernel": [10, 9, 9], "conv_stride": [5, 8, 8]}  # of 20 ms, as those of CAM++
        tree["ssl_source"] = str(write_ssl(tmp_path / "source", num_hidden_layers=3, **frames))
    text = configuration.dump(tree)
    if name == "pretrain_rooms":
        text = text.replace("rir_csv: null", "rir_csv: rooms.csv")
    made = load_hyperpyyaml(text)
    feats = made["mean_var_norm"](made["compute_features"](torch.randn(2, 3200)))
    embeddings = made["embedding_model"].eval()(feats)
    assert embeddings.shape == (2, 1, made["embedding_model"].output_size)
    if any(True for _ in made["classifier"].parameters()):
        assert made["classifier"](embeddings).shape == (2, 1, made["n_classes"])


def test_the_resolved_yaml_makes_the_same_network():
    found = []
    for tree in (compose("s3"), configuration.resolve(compose("s3"))):
        torch.manual_seed(0)
        found.append(configuration.build(tree)["embedding_model"].state_dict())
    assert found[0].keys() == found[1].keys() and all(torch.equal(found[0][key], found[1][key]) for key in found[0])


def test_the_number_of_classes_is_that_of_the_labels():
    made = configuration.build(compose("s5", labels=["happy", "sad", "angry"]))
    assert made["classifier"].n_classes == 3 and len(made["metric_loss"].polarity) == 3
    assert configuration.build(compose("s1", labels=["a", "b"]))["classifier"].linear.out_features == 2


def test_the_thin_network_has_the_features_of_its_weights():
    made = configuration.build(compose("s5_thin"))
    spectrogram = made["compute_features"]
    assert (spectrogram.win, spectrogram.hop, spectrogram.n_fft, spectrogram.log) == (400, 160, 512, False)
    assert torch.equal(spectrogram.window, torch.hann_window(400))
    feats = made["mean_var_norm"](spectrogram(torch.randn(2, 3200)))
    torch.testing.assert_close(feats.std(-1, unbiased=False), torch.ones(2, 21))


def test_one_key_sets_the_speaker_normalisation():
    assert changed("s6", "s7") == {"speaker_normalization", "mean_var_norm", "embedding_model"}
    assert changed("s7", "s8") == {"speaker_normalization", "mean_var_norm", "embedding_model"}
    assert [compose(name)["speaker_normalization"] for name in ("s6", "s7", "s8")] == [
        *("none", "features", "features+embeddings")
    ]


@pytest.mark.parametrize("name", sorted(set(PRESETS) - BASES))
def test_every_key_of_a_preset_is_used(name):
    """By a reference in the YAML, by the code that trains, or by SpeechBrain as a run option."""
    tree = configuration.compose(name, "ravdess")
    text = configuration.dump(tree)
    files = [*(ROOT / "ser_plugins/training").glob("*.py"), *(ROOT / "recipes").glob("*.py")]
    code = "\n".join(file.read_text(encoding="utf-8") for file in files)
    options = {"precision", "max_grad_norm", "grad_accumulation_factor", "debug", "ckpt_interval_minutes"}
    used = {key for key in tree if re.search(rf"<{key}>", text) or re.search(rf"\"{key}\"|\.{key}\b", code)}
    assert set(tree) - used - options == set()


@pytest.mark.parametrize(
    "name", sorted(set(PRESETS) - BASES - {"pretrain", "pretrain_rooms", "mao_pretrain", "distil", "distil_joint"})
)
def test_every_key_that_training_reads_is_there(name):
    files = [
        ROOT / "recipes/train.py",
        *(ROOT / "ser_plugins/training" / f"{one}.py" for one in ("run", "cross_validation")),
    ]
    code = "\n".join(file.read_text(encoding="utf-8") for file in files)
    read = set(re.findall(r"\b(?:tree|hparams|recipe)\[\"(\w+)\"\]", code)) - {"train_logger", "stopwatch"}
    assert {"seed", "speaker_normalization", "batch_size"} < read
    assert read <= set(configuration.compose(name, "ravdess"))


def test_a_mel_spectrogram_on_the_command_line_is_logarithmic():
    tree = compose("s1", compute_features=configuration.YAML().load("!new:ser_plugins.MelSpectrogram {n_mels: 80}"))
    assert configuration.build(tree)["compute_features"].log
