"""The Brain alone: trains, validates and keeps what plain loops compute."""

import gc
import weakref
from functools import partial
from itertools import pairwise

import pytest
import speechbrain as sb
import torch
from speechbrain.augment.augmenter import Augmenter
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.dataloader import SaveableDataLoader
from torch.utils.data import DataLoader

from ser_plugins import SoftmaxClassifier, SVMClassifier, TripletLoss
from ser_plugins.errors import InputError
from ser_plugins.training import EncoderBrain, EpochCounter, StepSchedule, StepSeeds, WeightAverage
from ser_plugins.training.checkpoints import WholeCheckpointer
from ser_plugins.training.mixup import Mixup
from ser_plugins.training.objective import Objective


class Features(torch.nn.Module):
    def forward(self, signal, lengths=None):
        return signal


class Encoder(torch.nn.Module):
    """Two layers, the first of which is the backbone."""

    def __init__(self):
        super().__init__()
        self.backbone, self.head = torch.nn.Linear(6, 5), torch.nn.Linear(5, 4)

    def forward(self, feats, lengths=None):
        return self.head(self.backbone(feats)).unsqueeze(1)


def modules_of(encoder=None, classifier=None):
    modules = {name: Features() for name in ("compute_features", "mean_var_norm")}
    return {**modules, "embedding_model": encoder or Encoder(), "classifier": classifier or SoftmaxClassifier(4, 3)}


def loader(signals, labels, size, speakers=None, kind=DataLoader):
    speakers = speakers or [f"s{i % 4}" for i in range(len(signals))]
    rows = [
        {"id": str(i), "speaker": speaker, "signal": signal, "label": torch.tensor([int(label)])}
        for i, (signal, label, speaker) in enumerate(zip(signals, labels, speakers, strict=True))
    ]
    return kind(rows, batch_size=size, collate_fn=PaddedBatch)


def first(batches):
    return next(iter(batches))


def validate(brain, batches):
    brain.on_stage_start(sb.Stage.VALID)
    for batch in batches:
        brain.evaluate_batch(batch, sb.Stage.VALID)
    return brain.validate()


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_it_trains_alone():
    labels = torch.arange(48) % 3
    signals = torch.eye(3)[labels].repeat(1, 2) + 0.1 * torch.randn(48, 6)
    brain = EncoderBrain(modules_of(), partial(torch.optim.Adam, lr=0.05), {})
    brain.fit(range(1, 25), loader(signals, labels, 16), loader(signals, labels, 16))
    assert brain.validate()["accuracy"] > 0.9


def test_it_trains_alone_by_a_metric_loss():
    labels = torch.arange(48) % 3
    signals = torch.eye(3)[labels].repeat(1, 2) + 0.1 * torch.randn(48, 6)
    hparams = {"metric_loss": TripletLoss(0.5), "weight_average": WeightAverage(0.5), "step_seeds": StepSeeds(1)}
    brain = EncoderBrain(modules_of(classifier=torch.nn.Identity()), partial(torch.optim.Adam, lr=0.05), hparams)
    brain.fit(EpochCounter(24), loader(signals, labels, 16), loader(signals, labels, 16))
    assert brain.validate()["accuracy"] > 0.9


@torch.no_grad()
def test_without_a_classifier_accuracy_is_that_of_the_nearest_centroid():
    brain = EncoderBrain(modules_of(classifier=torch.nn.Identity()), hparams={"metric_loss": TripletLoss(0.1)})
    known, known_labels = torch.randn(20, 6), torch.arange(20) % 3
    unknown, labels = torch.randn(30, 6), torch.arange(30) % 3
    brain.train_set = loader(known, known_labels, 7)
    found = validate(brain, loader(unknown, labels, 8))
    encoder = brain.modules.embedding_model

    def embed(x):
        embedding = encoder(x).squeeze()
        return embedding / embedding.norm()

    right = 0
    for x, label in zip(unknown, labels.tolist(), strict=True):
        cosines = []
        for k in range(3):
            centroid = sum(embed(y) for y, other in zip(known, known_labels.tolist(), strict=True) if other == k)
            cosines.append(float(embed(x) @ centroid / centroid.norm()))
        right += cosines.index(max(cosines)) == label
    assert found["accuracy"] == pytest.approx(right / 30) and 0 < right < 30


@torch.no_grad()
def test_centered_validation_subtracts_the_mean_of_all_utterances_of_a_speaker():
    modules = modules_of()
    brain = EncoderBrain(modules, hparams={"speaker_normalization": "features+embeddings"})
    signals, labels, names = torch.randn(30, 6), torch.arange(30) % 3, [f"s{i % 4}" for i in range(30)]
    batches = loader(signals, labels, 8, names)
    found = validate(brain, batches)
    raw = modules["embedding_model"](signals)
    right = 0
    for one, name, label in zip(raw, names, labels.tolist(), strict=True):
        own = [other for other, other_name in zip(raw, names, strict=True) if other_name == name]
        right += int(modules["classifier"](one - sum(own) / len(own)).argmax()) == label
    assert found["accuracy"] == pytest.approx(right / 30)
    brain.modules.train()
    trained = brain.compute_forward(first(batches), sb.Stage.TRAIN)  # of its first batch alone, in training
    expected = [raw[i] - (raw[i % 4] + raw[i % 4 + 4]) / 2 for i in range(8)]
    torch.testing.assert_close(trained, torch.stack(expected))


def test_the_backbone_is_frozen_first_and_then_learns_at_its_own_rate():
    rates = {"lr_schedule": StepSchedule(0.1, every=2), "backbone_lr_factor": 0.25, "frozen_epochs": 1}
    brain = EncoderBrain(modules_of(), partial(torch.optim.SGD, lr=9.0), rates)
    brain.init_optimizers()
    batch = first(loader(torch.randn(6, 6), torch.arange(6) % 3, 6))
    weights = dict(brain.modules.named_parameters())
    for epoch, rate in ((1, 0.1), (2, 0.1), (3, 0.01)):
        before = {name: weight.detach().clone() for name, weight in weights.items()}
        brain.on_stage_start(sb.Stage.TRAIN, epoch)
        brain.modules.train()
        scores = brain.modules.classifier(brain.compute_forward(batch, sb.Stage.TRAIN)).squeeze(1)
        loss = torch.nn.functional.nll_loss(scores, batch.label.data.squeeze(1))
        gradients = dict(zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True))
        brain.fit_batch(batch)
        for name, weight in weights.items():
            own = (0.25 if epoch > 1 else 0.0) if ".backbone." in name else 1.0
            torch.testing.assert_close(weight, before[name] - rate * own * gradients[name])


def test_both_losses_are_summed():
    metric = TripletLoss(0.5)

    def cross_entropy(scores, labels):
        return 2 * torch.nn.functional.nll_loss(scores, labels)

    modules = modules_of()
    brain = EncoderBrain(modules, hparams={"metric_loss": metric, "classification_loss": cross_entropy})
    labels = torch.arange(12) % 3
    found = validate(brain, loader(torch.randn(12, 6), labels, 5))
    embeddings = torch.cat([embedding for embedding, _, _ in brain.validated])
    logits = modules["classifier"].linear(embeddings.squeeze(1).relu())
    assert metric(embeddings, labels) > 0
    expected = metric(embeddings, labels) + 2 * torch.nn.functional.cross_entropy(logits, labels)
    assert found["loss"] == pytest.approx(float(expected))
    assert found["accuracy"] == pytest.approx(int((logits.argmax(-1) == labels).sum()) / 12)


class Noise:
    """An augmenter whose only augmentation is random."""

    def __init__(self):
        self.augmentations = {}

    def __call__(self, values, lengths):
        return values + torch.randn_like(values), lengths

    def replicate_labels(self, values):
        return values


@pytest.mark.parametrize("name", ["wav_augment", "feat_augment"])
def test_training_alone_is_augmented_and_each_step_has_its_own_seed(name):
    modules = modules_of()
    batch = first(loader(torch.randn(6, 6), torch.arange(6) % 3, 6))
    plain = modules["embedding_model"](batch.signal.data)
    brain = EncoderBrain(modules, hparams={name: Noise(), "step_seeds": StepSeeds(1)})
    found = []
    for brain.step in (1, 2, 1):
        torch.rand(brain.step)  # other draws do not matter
        brain.on_fit_batch_end(batch, None, None, should_step=False)  # of the step before
        found.append(brain.compute_forward(batch, sb.Stage.TRAIN))
    assert torch.equal(found[0], found[2]) and not torch.allclose(found[0], found[1])
    assert not torch.allclose(found[0], plain)
    assert torch.equal(brain.compute_forward(batch, sb.Stage.VALID), plain)


def test_no_seed_draws_what_another_draws_a_step_later():
    drawn = []
    for seed in (1, 2, 3):
        brain = EncoderBrain(modules_of(), hparams={"step_seeds": StepSeeds(seed)})
        for brain.step in range(20):
            brain.on_fit_batch_end(None, None, None, should_step=False)
            drawn.append(float(torch.rand((), dtype=torch.float64)))
    assert len(set(drawn)) == 60


def test_copies_that_augmenters_add_keep_label_and_speaker():
    """SpeechBrain's augmenters may add copies twice: to the waveforms and to the features."""
    doubled = [Augmenter(concat_original=True, augmentations=[torch.nn.Identity()]) for _ in range(2)]
    given = {"wav_augment": doubled[0], "feat_augment": doubled[1]}
    modules = modules_of()
    brain = EncoderBrain(modules, hparams=given)
    brain.on_stage_start(sb.Stage.TRAIN, 1)
    signals, labels = torch.randn(6, 6), torch.arange(6) % 3
    batch = first(loader(signals, labels, 6))
    embeddings = brain.compute_forward(batch, sb.Stage.TRAIN)
    torch.testing.assert_close(embeddings, modules["embedding_model"](signals.repeat(4, 1)))
    loss = brain.compute_objectives(embeddings, batch, sb.Stage.TRAIN)
    scores = modules["classifier"](modules["embedding_model"](signals)).squeeze(1)
    torch.testing.assert_close(loss, torch.nn.functional.nll_loss(scores, labels))

    centered = EncoderBrain(modules, hparams={**given, "speaker_normalization": "features+embeddings"})
    batch = first(loader(signals, labels, 6, [f"s{i % 2}" for i in range(6)]))
    found = centered.compute_forward(batch, sb.Stage.TRAIN)
    raw = modules["embedding_model"](signals)
    expected = torch.stack([raw[i] - raw[i % 2 :: 2].mean(0) for i in range(6)])
    torch.testing.assert_close(found, expected.repeat(4, 1, 1))


def test_validation_and_the_model_that_is_kept_have_the_average_of_the_weights(tmp_path):
    modules = modules_of()
    kept = {name: modules[name] for name in ("embedding_model", "classifier")}
    hparams = {"weight_average": WeightAverage(0.3), "lr_schedule": StepSchedule(0.1)}
    brain = EncoderBrain(
        modules, partial(torch.optim.SGD, lr=9.0), hparams, checkpointer=WholeCheckpointer(tmp_path, kept)
    )
    brain.init_optimizers()
    batch = first(loader(torch.randn(6, 6), torch.arange(6) % 3, 6))
    brain.on_stage_start(sb.Stage.TRAIN, 1)
    weights, averages = dict(brain.modules.named_parameters()), {}
    for decay in (0.0, 2 / 11, 3 / 12, 0.3, 0.3):  # the weights after the first step begin the average
        brain.modules.train()
        brain.fit_batch(batch)
        for name, weight in weights.items():
            averages[name] = (decay * averages.get(name, 0.0) + (1 - decay) * weight).detach()

    def expected(of):
        hidden = batch.signal.data
        for layer in ("embedding_model.backbone", "embedding_model.head"):
            hidden = hidden @ of[f"{layer}.weight"].T + of[f"{layer}.bias"]
        return hidden.unsqueeze(1)

    trained = {name: weight.detach().clone() for name, weight in weights.items()}
    torch.testing.assert_close(brain.compute_forward(batch, sb.Stage.TEST), expected(trained))
    brain.modules.eval()
    torch.testing.assert_close(brain.compute_forward(batch, sb.Stage.TEST), expected(averages))
    brain.train_stats = {}
    validate(brain, [batch])
    brain.on_stage_end(sb.Stage.VALID, 0.0, epoch=1)
    with torch.no_grad():
        for average in brain.average.networks.values():
            for value in average.module.parameters():
                value.zero_()
    meta = brain.load_best()
    assert meta["epoch"] == 1
    for name, weight in brain.modules.named_parameters():
        torch.testing.assert_close(weight, averages[name])


@pytest.mark.parametrize("batches", [1, 2])
def test_the_averages_batch_norm_has_the_statistics_of_training_features(batches):
    network = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.BatchNorm1d(5), torch.nn.Unflatten(1, (1, 5)))

    class Wrapped(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = network

        def forward(self, feats, lengths=None):
            return self.layers(feats)

    average = WeightAverage(0.9, batches=batches)
    brain = EncoderBrain(modules_of(Wrapped(), SoftmaxClassifier(5, 3)), hparams={"weight_average": average})
    average.start(dict(brain.modules.items()))
    known = torch.randn(20, 6)
    brain.train_set = loader(known, torch.arange(20) % 3, 10)
    brain.on_stage_start(sb.Stage.VALID)
    norm = average.networks["embedding_model"].module.layers[1]
    hidden = network[0](known).view(2, 10, 5)[:batches]
    torch.testing.assert_close(norm.running_mean, hidden.mean((0, 1)).detach())
    torch.testing.assert_close(norm.running_var, hidden.var(1).mean(0).detach())
    assert not norm.training and norm.momentum == 0.1


def test_the_average_keeps_the_batch_norm_of_a_frozen_part():
    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.frozen, self.trained = torch.nn.BatchNorm1d(2), torch.nn.BatchNorm1d(2)
            torch.nn.init.constant_(self.frozen.running_mean, 7.0)

        def train(self, mode=True):
            super().train(mode)
            self.frozen.eval()
            return self

        def forward(self, x):
            return self.trained(self.frozen(x))

    module, average = Network(), WeightAverage(0.9)
    average.start({"network": module})
    average.update_statistics("network", module, [torch.full((4, 2), 9.0)])
    kept = average.networks["network"].module
    assert kept.frozen.running_mean.tolist() == [7, 7]
    torch.testing.assert_close(kept.trained.running_mean, torch.full((2,), 2.0), atol=1e-4, rtol=0)  # 9 − 7


def test_a_mixed_spectrogram_is_trained_for_both_of_its_labels():
    modules = modules_of()
    brain = EncoderBrain(modules, hparams={"mixup": 0.5, "step_seeds": StepSeeds(1)})
    brain.on_stage_start(sb.Stage.TRAIN, 1)
    brain.modules.train()
    labels = torch.arange(6) % 3
    batch = first(loader(torch.randn(6, 6), labels, 6))
    shares = set()
    for brain.step in (1, 2, 3):
        embeddings = brain.compute_forward(batch, sb.Stage.TRAIN)
        share, order = brain.augmentation.mixup.share, brain.augmentation.mixup.order
        shares.add(share)
        mixed = torch.stack(
            [share * x + (1 - share) * batch.signal.data[k] for x, k in zip(batch.signal.data, order, strict=True)]
        )
        torch.testing.assert_close(embeddings, modules["embedding_model"](mixed))
        soft = share * torch.eye(3)[labels] + (1 - share) * torch.eye(3)[labels[order]]
        scores = modules["classifier"](embeddings).squeeze(1)
        found = brain.compute_objectives(embeddings, batch, sb.Stage.TRAIN)
        torch.testing.assert_close(found, torch.nn.functional.cross_entropy(scores, soft))
    assert len(shares) > 1 and min(shares) >= 0.5
    assert torch.equal(brain.compute_forward(batch, sb.Stage.VALID), modules["embedding_model"](batch.signal.data))


@pytest.mark.parametrize(
    ("hparams", "says"),
    [
        ({"mixup": -1}, "alpha of mixup must be above 0, got -1"),
        ({"mixup": 0.4, "metric_loss": TripletLoss(0.1)}, "mixup mixes two labels, and a metric loss"),
        ({"mixup": 0.4, "speaker_normalization": "features+embeddings"}, "mixup mixes speakers"),
        ({"speaker_normalization": "voice"}, "must be one of none, features, embeddings"),
        ({"lr_schedule": "cosine"}, "lr_schedule: 'cosine' is no schedule; give !new:"),
        ({"backbone_lr_factor": -1}, "backbone_lr_factor: -1 is not allowed"),
        ({"frozen_epochs": "no"}, "frozen_epochs: 'no' is not allowed"),
        ({"classification_share": 1}, "classification_share: 1 is not allowed; give a number from 0"),
        ({"classification_share": 0.5}, "comes before a metric loss, and there is none; give"),
        ({"classification_share": 0.5, "metric_loss": TripletLoss(0.1)}, "needs a classifier that is trained"),
        ({"fit_passes": 1.5}, "fit_passes: 1.5 is not allowed; give a whole number"),
    ],
)
def test_settings_that_are_of_no_use_are_refused(hparams, says):
    with pytest.raises(InputError, match=says):
        EncoderBrain(modules_of(classifier=SVMClassifier(3)), hparams=hparams)


def test_load_best_frees_the_audio(tmp_path):
    class Audio(torch.utils.data.Dataset):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return {"id": "one"}

    checkpointer = WholeCheckpointer(tmp_path)
    brain = EncoderBrain(modules_of(), checkpointer=checkpointer)
    brain.train_set = SaveableDataLoader(Audio())
    checkpointer.add_recoverable("train_loader", brain.train_set)
    checkpointer.save_checkpoint(meta={"accuracy": 1.0})
    audio = weakref.ref(brain.train_set.dataset)
    brain.load_best()
    gc.collect()
    assert audio() is None


def test_cross_entropy_comes_first_and_the_metric_loss_after_it(tmp_path):
    """Two of four epochs; the gradients tell which loss an epoch has, and a metric epoch is kept."""
    labels = torch.arange(12) % 3
    batches = loader(torch.randn(12, 6), labels, 12)
    head = SoftmaxClassifier(4, 3)
    modules = modules_of(classifier=SVMClassifier(3, head=head))
    settings = {"metric_loss": TripletLoss(0.5), "classification_share": 0.5, "mixup": 0.4}
    checkpointer = WholeCheckpointer(tmp_path, {"model": torch.nn.ModuleDict(modules)})
    brain = EncoderBrain(modules, partial(torch.optim.SGD, lr=0.1), settings, checkpointer=checkpointer)
    seen = []

    class Watch(EpochCounter):
        def __next__(self):
            seen.append(
                (head.linear.weight.detach().clone(), brain.modules.embedding_model.head.weight.detach().clone())
            )
            return super().__next__()

    results = []
    validate = brain.validate
    brain.validate = lambda: results.append(validate()) or results[-1]
    brain.fit(Watch(4), batches, batches)
    heads, encoders = ([bool((a[i] != b[i]).any()) for a, b in pairwise(seen)] for i in (0, 1))
    assert heads == [True, True, False, False] and all(encoders)
    assert [*map(set, results)] == [{"loss", "head_accuracy"}] * 2 + [{"loss", "accuracy"}] * 2
    assert brain.load_best()["epoch"] in (3, 4)


@pytest.mark.parametrize(("share", "epochs", "first"), [(0.67, 24, 16), (0.67, 12, 8), (0.67, 2, 1), (0.67, 1, 0)])
def test_a_share_of_the_epochs_is_rounded_down_so_that_a_metric_epoch_is_left(share, epochs, first):
    objective = Objective(TripletLoss(0.1), torch.nn.functional.nll_loss, Mixup(None), share)
    kinds = []
    for epoch in range(1, epochs + 1):
        objective.begin_epoch(epoch, epochs)
        kinds.append((objective.classifies, objective.measures))
    assert kinds == [(True, False)] * first + [(False, True)] * (epochs - first)
