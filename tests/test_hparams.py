"""The five strategies differ in what the paper says, and in nothing else."""

from itertools import combinations
from pathlib import Path

import pytest
import torch

from ser_plugins import EmotionConstrainedTripletLoss, SoftmaxClassifier, SVMClassifier, TripletLoss, configuration
from ser_plugins.training.recipe import Recipe

HPARAMS = Path(__file__).parents[1] / "hparams"
STRATEGIES = ["s1", "s2", "s3", "s4", "s5"]
# From each strategy to the next: multi-stage training, ghosts, triplet loss and SVM, emotion constraint.
STEPS = [{"multi_stage"}, {"ghost_clusters"}, {"metric_loss", "classifier"}, {"metric_loss"}]


def read(name):
    return configuration.read(HPARAMS / f"{name}.yaml")


@pytest.fixture(scope="module")
def built():
    return {name: configuration.build(read(name)) for name in STRATEGIES}


@pytest.mark.parametrize(("first", "second"), combinations(range(5), 2))
def test_two_strategies_differ_in_what_the_paper_says(first, second):
    one, other = read(STRATEGIES[first]), read(STRATEGIES[second])
    assert list(one) == list(other)
    changed = {key for key in one if configuration.dump({"_": one[key]}) != configuration.dump({"_": other[key]})}
    assert changed == {"strategy"}.union(*STEPS[first:second])


def test_what_changes_is_as_the_paper_says(built):
    assert [built[name]["strategy"] for name in STRATEGIES] == ["S1", "S2", "S3", "S4", "S5"]
    assert [built[name]["multi_stage"] for name in STRATEGIES] == [False, True, True, True, True]
    assert [built[name]["embedding_model"].pooling.ghost_clusters for name in STRATEGIES] == [0, 0, 2, 2, 2]
    losses = [type(None)] * 3 + [TripletLoss, EmotionConstrainedTripletLoss]
    assert [type(built[name]["metric_loss"]) for name in STRATEGIES] == losses
    classifiers = [SoftmaxClassifier] * 3 + [SVMClassifier] * 2
    assert [type(built[name]["classifier"]) for name in STRATEGIES] == classifiers
    assert built["s4"]["metric_loss"].margin == 0.1
    assert (built["s5"]["metric_loss"].alpha, built["s5"]["metric_loss"].beta) == (0.1, 0.15)


def test_margins_are_keys_of_their_own():
    margins = {"alpha": 0.3, "beta": 0.4}
    assert configuration.build({**read("s4"), **margins})["metric_loss"].margin == 0.3
    loss = configuration.build({**read("s5"), **margins})["metric_loss"]
    assert (loss.alpha, loss.beta) == (0.3, 0.4)


@pytest.mark.parametrize("name", STRATEGIES)
def test_what_is_shared_is_as_the_paper_says(built, name):
    made = built[name]
    assert (made["lr"], made["batch_size"], made["lr_decay_epochs"], made["n_folds"]) == (0.001, 32, 20, 10)
    optimizer = made["opt_class"]([torch.nn.Parameter(torch.zeros(1))])
    assert isinstance(optimizer, torch.optim.Adam) and optimizer.defaults["lr"] == 0.001
    assert made["embedding_model"].pooling.clusters == 8
    assert made["n_classes"] == len(made["labels"]) == 8
    spectrogram = made["compute_features"]
    assert (spectrogram.win, spectrogram.hop, spectrogram.n_fft) == (512, 160, 512)


@pytest.mark.parametrize("name", STRATEGIES)
@torch.no_grad()
def test_parts_fit_together(built, name):
    made = built[name]
    feats = made["mean_var_norm"](made["compute_features"](torch.randn(2, 3200)))
    embeddings = made["embedding_model"].eval()(feats)
    assert embeddings.shape == (2, 1, made["embedding_size"]) == (2, 1, 512)
    if name not in {"s4", "s5"}:
        assert made["classifier"](embeddings).shape == (2, 1, 8)


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_resolved_yaml_makes_the_same_network(built, name):
    torch.manual_seed(0)
    one = configuration.build(read(name))["embedding_model"].state_dict()
    torch.manual_seed(0)
    other = configuration.build(configuration.resolve(read(name)))["embedding_model"].state_dict()
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_labels_are_counted_wherever_they_count():
    tree = configuration.merge(read("s5"), {"labels": ["happy", "sad", "angry"]}, "")
    made = configuration.build(tree)
    assert made["classifier"].n_classes == 3 and len(made["metric_loss"].polarity) == 3
    assert configuration.build({**read("s1"), "labels": ["a", "b"]})["classifier"].linear.out_features == 2


@torch.no_grad()
def test_the_thin_network_is_s5_with_another_network_and_its_features():
    one, other = read("s5"), read("s5_thin")
    assert list(one) == list(other)
    network, features = {"embedding_model", "channels", "descriptor_size"}, {"log_magnitude", "norm_axis"}
    changed = {key for key in one if configuration.dump({"_": one[key]}) != configuration.dump({"_": other[key]})}
    assert changed - features == {"strategy", "compute_features"} | network
    made = configuration.build(configuration.resolve(other))
    spectrogram = made["compute_features"]
    assert (spectrogram.win, spectrogram.hop, spectrogram.n_fft, spectrogram.log) == (400, 160, 512, False)
    assert torch.equal(spectrogram.window, torch.hann_window(400))
    feats = made["mean_var_norm"](spectrogram(torch.randn(2, 3200)))
    torch.testing.assert_close(feats.std(-1, unbiased=False), torch.ones(2, 21))
    assert made["embedding_model"].eval()(feats).shape == (2, 1, 512)


def test_s6_is_s5_with_another_training_on_mel_bins():
    one, other = read("s5"), read("s6")
    assert list(one) == list(other)
    changed = {key for key in one if configuration.dump({"_": one[key]}) != configuration.dump({"_": other[key]})}
    training = {"classification_loss", "opt_class", "lr_schedule"}
    features = {"n_bins", "dropped_bins", "compute_features"}
    assert changed == {"strategy", "classifier"} | training | features
    made = configuration.build({**other, "n_classes": 4})
    feats = made["mean_var_norm"](made["compute_features"](torch.randn(2, 3200)))
    assert feats.shape == (2, 21, 80) and made["embedding_model"].eval()(feats).shape == (2, 1, 512)
    schedule = configuration.build({**other, "number_of_epochs": 10})["lr_schedule"]
    rates = [schedule(epoch) for epoch in range(1, 11)]
    assert rates[1] == max(rates) == 1 and rates[1:] == sorted(rates[1:], reverse=True) and 0 < rates[-1] < 0.05


def test_s7_is_s6_told_who_speaks():
    one, other = read("s6"), read("s7")
    assert list(one) == list(other)
    changed = {key for key in one if configuration.dump({"_": one[key]}) != configuration.dump({"_": other[key]})}
    assert changed == {"strategy", "norm_axis"} and other["norm_axis"] == "speaker"


def test_speakers_for_s6_are_heard_as_it_hears():
    speakers, other = read("pretrain_mel"), read("s6")
    for key in ("n_bins", "log_magnitude", "compute_features", "mean_var_norm", "audio_normalizer"):
        assert configuration.dump({"_": speakers[key]}) == configuration.dump({"_": other[key]})


def test_a_file_of_overrides_is_its_keys_given_one_by_one():
    by_one = ["--n_bins", "80", "--dropped_bins", "12", "--mixup", "0.4", "--crop_seconds", "1.5"]
    by_one += ["--compute_features", "!new:ser_plugins.MelSpectrogram {n_mels: 80, log: True}"]
    by_one += ["--number_of_epochs", "32", "--patience", "32"]
    by_one += ["--lr_schedule", "!name:ser_plugins.training.schedule.cosine {epochs: 32, warmup: 1}"]
    trees = []
    for words in (by_one, ["--overrides", str(HPARAMS / "regularised.yaml")]):
        recipe = Recipe.from_arguments([str(HPARAMS / "s1.yaml"), "--corpus", "ravdess", *words])
        trees.append(configuration.plain(configuration.resolve(recipe.tree)))
    assert trees[0] == trees[1]


def test_the_command_line_goes_over_its_file_and_the_file_over_strategy_and_corpus(tmp_path):
    file = tmp_path / "changes.yaml"
    file.write_text("corpus: demo\nseed: 7\nnumber_of_epochs: 3\ncrop_seconds: 0.5\nalpha: 0.3\n")
    tree = Recipe.from_arguments([str(HPARAMS / "s4.yaml"), "--overrides", str(file), "--alpha", "0.2"]).tree
    assert [tree[key] for key in ("seed", "number_of_epochs", "crop_seconds", "alpha")] == [7, 3, 0.5, 0.2]
    assert "overrides" not in tree
