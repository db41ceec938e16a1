"""Validation of a metric loss, recomputed by plain loops."""

import gc
import weakref
from functools import partial

import speechbrain as sb
import torch
from speechbrain.augment.augmenter import Augmenter
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.dataloader import SaveableDataLoader
from torch.utils.data import DataLoader, Dataset

from ser_plugins import SoftmaxClassifier, TripletLoss
from ser_plugins.metric.sampler import BalancedBatchSampler
from ser_plugins.models.batchnorm import MaskedBatchNorm
from ser_plugins.training import brain as brain_module
from ser_plugins.training.brain import EncoderBrain, _inside
from ser_plugins.training.checkpoints import WholeCheckpointer
from ser_plugins.training.schedule import steps

PLAIN = {"wav_augment": None, "feat_augment": None, "mixup": None}


class Features(torch.nn.Module):
    def forward(self, signal, lengths=None):
        return signal


class Encoder(torch.nn.Module):
    """A layer whose training mode embeds otherwise than its evaluation mode."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(6, 4)

    def forward(self, feats, lengths=None):
        return (self.layer(feats) + (torch.randn(4) if self.training else 0)).unsqueeze(1)


class Counter:
    direction = "max"

    def update_metric(self, value):
        self.value = value


def loader(signals, labels, size):
    rows = [
        {"id": str(i), "signal": signal, "label": torch.tensor([int(label)])}
        for i, (signal, label) in enumerate(zip(signals, labels, strict=True))
    ]
    return DataLoader(rows, batch_size=size, collate_fn=PaddedBatch)


@torch.no_grad()
def test_accuracy_is_that_of_the_nearest_centroid():
    torch.manual_seed(0)
    encoder, counter = Encoder(), Counter()
    names = ("compute_features", "mean_var_norm", "classifier")
    modules = {**{name: Features() for name in names}, "embedding_model": encoder}
    hparams = {"n_classes": 3, "embedding_size": 4, "metric_loss": TripletLoss(0.1), "epoch_counter": counter}
    brain = EncoderBrain(modules, hparams=hparams)
    known, known_labels = torch.randn(20, 6), torch.arange(20) % 3
    unknown, labels = torch.randn(30, 6), torch.arange(30) % 3
    brain.reference_loader = loader(known, known_labels, 7)
    brain.modules.train()
    brain.on_stage_start(sb.Stage.VALID)
    for batch in loader(unknown, labels, 8):
        brain.evaluate_batch(batch, sb.Stage.VALID)

    def embed(x):
        embedding = encoder.layer.weight @ x + encoder.layer.bias
        return embedding / embedding.norm()

    right = 0
    for x, label in zip(unknown, labels.tolist(), strict=True):
        cosines = []
        for k in range(3):
            centroid = sum(embed(y) for y, other in zip(known, known_labels.tolist(), strict=True) if other == k)
            cosines.append(float(embed(x) @ centroid / centroid.norm()))
        right += cosines.index(max(cosines)) == label
    assert brain.validate() == {"accuracy": right / 30}
    assert 0 < right < 30


class Centred(torch.nn.Module):
    """A layer that is told who speaks, and says so."""

    speaker_centred = True

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(6, 4)

    def forward(self, feats, lengths=None, speakers=None):
        self.told = speakers
        return self.layer(feats).unsqueeze(1)


@torch.no_grad()
def test_validation_takes_the_mean_of_all_that_a_speaker_says_in_it():
    torch.manual_seed(0)
    modules = {name: Features() for name in ("compute_features", "mean_var_norm")}
    modules |= {"embedding_model": Centred(), "classifier": SoftmaxClassifier(4, 3)}
    nll = torch.nn.functional.nll_loss
    hparams = {**PLAIN, "metric_loss": None, "classification_loss": nll, "epoch_counter": Counter()}
    brain = EncoderBrain(modules, hparams=hparams)
    signals, labels, names = torch.randn(30, 6), torch.arange(30) % 3, [f"s{i % 4}" for i in range(30)]
    rows = [
        {"id": str(i), "speaker": name, "signal": signal, "label": label[None]}
        for i, (name, signal, label) in enumerate(zip(names, signals, labels, strict=True))
    ]
    brain.valid_loader = DataLoader(rows, batch_size=8, collate_fn=PaddedBatch)
    brain.on_stage_start(sb.Stage.VALID)
    for batch in brain.valid_loader:
        brain.evaluate_batch(batch, sb.Stage.VALID)
    assert modules["embedding_model"].told is None
    raw = modules["embedding_model"].layer(signals)
    right = 0
    for one, name, label in zip(raw, names, labels.tolist(), strict=True):
        own = [other for other, other_name in zip(raw, names, strict=True) if other_name == name]
        right += int(modules["classifier"](one - sum(own) / len(own)).argmax()) == label
    assert brain.validate() == {"accuracy": right / 30}
    brain.modules.train()
    brain.compute_forward(next(iter(brain.valid_loader)), sb.Stage.TRAIN)
    assert modules["embedding_model"].told.tolist() == [0, 1, 2, 3, 0, 1, 2, 3]


class Backboned(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone, self.head = torch.nn.Linear(6, 5), torch.nn.Linear(5, 4)

    def forward(self, feats, lengths=None):
        return self.head(self.backbone(feats)).unsqueeze(1)


def test_backbone_is_frozen_first_and_then_learns_at_its_own_rate():
    torch.manual_seed(0)
    modules = {name: Features() for name in ("compute_features", "mean_var_norm")}
    modules |= {"embedding_model": Backboned(), "classifier": SoftmaxClassifier(4, 3)}
    rates = {"lr": 0.1, "lr_schedule": partial(steps, every=2), "backbone_lr_factor": 0.25, "frozen_epochs": 1}
    losses = {"metric_loss": None, "classification_loss": torch.nn.functional.nll_loss}
    counter = type("Counter", (), {"current": 1})()
    hparams = {**PLAIN, **losses, **rates, "epoch_counter": counter, "seed": 1}
    brain = EncoderBrain(modules, partial(torch.optim.SGD, lr=9.0), hparams)
    brain.train_batches = BalancedBatchSampler([0, 1, 2])
    brain.init_optimizers()
    batch = next(iter(loader(torch.randn(6, 6), torch.arange(6) % 3, 6)))
    weights = dict(brain.modules.named_parameters())
    for epoch, rate in ((1, 0.1), (2, 0.1), (3, 0.01)):
        before = {name: weight.detach().clone() for name, weight in weights.items()}
        brain.on_stage_start(sb.Stage.TRAIN, epoch)
        loss = torch.nn.functional.nll_loss(
            brain.modules.classifier(brain.compute_forward(batch, sb.Stage.TRAIN)).squeeze(1),
            batch.label.data.squeeze(1),
        )
        gradients = dict(zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True))
        brain.fit_batch(batch)
        for name, weight in weights.items():
            own = (0.25 if epoch > 1 else 0.0) if ".backbone." in name else 1.0
            torch.testing.assert_close(weight, before[name] - rate * own * gradients[name])


def test_both_losses_are_summed_where_a_classifier_is_trained_beside_a_metric():
    torch.manual_seed(0)
    metric = TripletLoss(0.5)
    modules = {name: Features() for name in ("compute_features", "mean_var_norm")}
    modules |= {"embedding_model": Backboned(), "classifier": SoftmaxClassifier(4, 3)}

    def cross_entropy(scores, labels):
        return 2 * torch.nn.functional.nll_loss(scores, labels)

    brain = EncoderBrain(modules, hparams={"metric_loss": metric, "classification_loss": cross_entropy})
    labels = torch.arange(12) % 3
    batch = next(iter(loader(torch.randn(12, 6), labels, 12)))
    brain.on_stage_start(sb.Stage.VALID)
    embeddings = brain.compute_forward(batch, sb.Stage.VALID)
    found = brain.compute_objectives(embeddings, batch, sb.Stage.VALID)
    logits = modules["classifier"].linear(embeddings.squeeze(1).relu())
    assert metric(embeddings, labels) > 0
    expected = metric(embeddings, labels) + 2 * torch.nn.functional.cross_entropy(logits, labels)
    torch.testing.assert_close(found, expected)
    assert brain.validate() == {"accuracy": int((logits.argmax(-1) == labels).sum()) / 12}


class Noise:
    """An augmenter whose only augmentation is random."""

    def __init__(self):
        self.augmentations = {}

    def __call__(self, values, lengths):
        return values + torch.randn_like(values), lengths

    def replicate_labels(self, values):
        return values


def test_training_alone_is_augmented_and_each_step_in_its_own_way():
    modules = {name: Features() for name in ("compute_features", "mean_var_norm")}
    modules |= {"embedding_model": Backboned(), "classifier": SoftmaxClassifier(4, 3)}
    batch = next(iter(loader(torch.randn(6, 6), torch.arange(6) % 3, 6)))
    plain = modules["embedding_model"](batch.signal.data)
    for name in ("wav_augment", "feat_augment"):
        counter = type("Counter", (), {"current": 2})()
        brain = EncoderBrain(modules, hparams={**PLAIN, name: Noise(), "epoch_counter": counter, "seed": 1})
        brain.train_batches = [None] * 5
        found = []
        for brain.step in (1, 2, 1):
            torch.rand(brain.step)  # whatever else was drawn
            brain.on_fit_batch_end(batch, None, None, should_step=False)  # of the step before
            found.append(brain.compute_forward(batch, sb.Stage.TRAIN))
        assert torch.equal(found[0], found[2]) and not torch.allclose(found[0], found[1])
        assert not torch.allclose(found[0], plain)
        assert torch.equal(brain.compute_forward(batch, sb.Stage.VALID), plain)


def test_no_seed_draws_what_another_does_a_step_later():
    modules = {name: torch.nn.Identity() for name in ("compute_features", "mean_var_norm", "embedding_model")}
    counter = type("Counter", (), {"current": 2})()
    drawn = []
    for seed in (1, 2, 3):
        brain = EncoderBrain(modules, hparams={**PLAIN, "epoch_counter": counter, "seed": seed})
        brain.train_batches = [None] * 5
        for brain.step in range(20):
            brain.on_fit_batch_end(None, None, None, should_step=False)
            drawn.append(float(torch.rand((), dtype=torch.float64)))
    assert len(set(drawn)) == 60


def test_utterances_that_augmenters_add_keep_label_and_speaker():
    """SpeechBrain's augmenters may put copies beside the originals, twice, once before and once after the features."""
    doubled = [Augmenter(concat_original=True, augmentations=[torch.nn.Identity()]) for _ in range(2)]
    modules = {name: Features() for name in ("compute_features", "mean_var_norm")}
    modules |= {"embedding_model": Backboned(), "classifier": SoftmaxClassifier(4, 3)}
    given = {"wav_augment": doubled[0], "feat_augment": doubled[1], "mixup": None, "metric_loss": None}
    brain = EncoderBrain(modules, hparams={**given, "classification_loss": torch.nn.functional.nll_loss})
    brain.correct = brain.count = 0
    signals, labels = torch.randn(6, 6), torch.arange(6) % 3
    batch = next(iter(loader(signals, labels, 6)))
    embeddings = brain.compute_forward(batch, sb.Stage.TRAIN)
    torch.testing.assert_close(embeddings, modules["embedding_model"](signals.repeat(4, 1)))
    loss = brain.compute_objectives(embeddings, batch, sb.Stage.TRAIN)
    scores = modules["classifier"](modules["embedding_model"](signals)).squeeze(1)
    torch.testing.assert_close(loss, torch.nn.functional.nll_loss(scores, labels))
    assert brain.count == 24

    rows = [{"id": str(i), "speaker": f"s{i % 2}", "signal": signal} for i, signal in enumerate(signals)]
    centred = EncoderBrain({**modules, "embedding_model": Centred()}, hparams=given)
    centred.compute_forward(PaddedBatch(rows), sb.Stage.TRAIN)
    assert centred.modules.embedding_model.told.tolist() == [0, 1, 0, 1, 0, 1] * 4


class Normed(Backboned):
    """Measures what the backbone gives, and goes on without."""

    def __init__(self):
        super().__init__()
        self.norm = MaskedBatchNorm(5, affine=False)

    def forward(self, feats, lengths=None):
        self.norm(self.backbone(feats).detach())
        return super().forward(feats)


def test_validation_and_what_is_kept_have_the_moving_average_of_the_weights(tmp_path):
    torch.manual_seed(0)
    modules = {name: Features() for name in ("compute_features", "mean_var_norm")}
    modules |= {"embedding_model": Normed(), "classifier": SoftmaxClassifier(4, 3)}
    rates = {"lr": 0.1, "lr_schedule": partial(steps, every=9), "backbone_lr_factor": 1.0, "frozen_epochs": 0}
    losses = {"metric_loss": None, "classification_loss": torch.nn.functional.nll_loss}
    counter = type("Counter", (), {"current": 1})()
    checkpointer = WholeCheckpointer(tmp_path, {name: modules[name] for name in ("embedding_model", "classifier")})
    hparams = {**PLAIN, **losses, **rates, "ema_decay": 0.3, "epoch_counter": counter, "seed": 1}
    brain = EncoderBrain(modules, partial(torch.optim.SGD, lr=9.0), hparams, checkpointer=checkpointer)
    brain.train_batches = BalancedBatchSampler([0, 1, 2])
    brain.init_optimizers()
    batch = next(iter(loader(torch.randn(6, 6), torch.arange(6) % 3, 6)))
    brain.on_stage_start(sb.Stage.TRAIN, 1)
    weights, averages = dict(brain.modules.named_parameters()), {}
    for decay in (0.0, 2 / 11, 3 / 12, 0.3, 0.3):  # the first weights begin the average
        brain.modules.train()
        brain.fit_batch(batch)
        for name, weight in weights.items():
            old = averages.get(name, 0.0)
            averages[name] = (decay * old + (1 - decay) * weight).detach()
    trained = {name: weight.detach().clone() for name, weight in weights.items()}

    def expected(of):
        hidden = batch.signal.data
        for layer in ("embedding_model.backbone", "embedding_model.head"):
            hidden = hidden @ of[f"{layer}.weight"].T + of[f"{layer}.bias"]
        return hidden.unsqueeze(1)

    brain.modules.train()
    torch.testing.assert_close(brain.embed(batch), expected(trained))
    known = torch.randn(20, 6)
    brain.reference_loader = loader(known, torch.arange(20) % 3, 20)
    brain.on_stage_start(sb.Stage.VALID)
    torch.testing.assert_close(brain.embed(batch), expected(averages))
    hidden = known @ averages["embedding_model.backbone.weight"].T + averages["embedding_model.backbone.bias"]
    norm = brain.averages["embedding_model"].module.norm
    torch.testing.assert_close(norm.running_mean, hidden.mean(0))
    torch.testing.assert_close(norm.running_var, hidden.var(0))
    assert not norm.training and norm.momentum == 0.1
    checkpointer.save_checkpoint()
    kept = brain.settle()
    assert set(kept) == {"embedding_model_average", "classifier_average"}
    for average in kept.values():
        for value in average.module.state_dict().values():
            value.zero_()
    WholeCheckpointer(tmp_path, kept).recover_if_possible()
    for name, weight in brain.modules.named_parameters():
        torch.testing.assert_close(weight, averages[name])


def test_mixed_utterances_are_trained_for_both_of_their_labels():
    torch.manual_seed(0)
    modules = {name: Features() for name in ("compute_features", "mean_var_norm")}
    modules |= {"embedding_model": Backboned(), "classifier": SoftmaxClassifier(4, 3)}
    losses = {"metric_loss": None, "classification_loss": torch.nn.functional.nll_loss}
    counter = type("Counter", (), {"current": 1})()
    brain = EncoderBrain(modules, hparams={**PLAIN, **losses, "mixup": 0.5, "epoch_counter": counter, "seed": 1})
    brain.train_batches, brain.correct, brain.count = [None] * 5, 0, 0
    labels = torch.arange(6) % 3
    batch = next(iter(loader(torch.randn(6, 6), labels, 6)))
    shares = set()
    for brain.step in (1, 2, 3):
        embeddings = brain.compute_forward(batch, sb.Stage.TRAIN)
        share, order = brain.share, brain.order
        shares.add(share)
        mixed = torch.stack(
            [share * x + (1 - share) * batch.signal.data[k] for x, k in zip(batch.signal.data, order, strict=True)]
        )
        torch.testing.assert_close(embeddings, modules["embedding_model"](mixed))
        soft = share * torch.eye(3)[labels] + (1 - share) * torch.eye(3)[labels[order]]
        scores = modules["classifier"](embeddings).squeeze(1)
        found = brain.compute_objectives(embeddings, batch, sb.Stage.TRAIN)
        torch.testing.assert_close(found, torch.nn.functional.cross_entropy(scores, soft))
    assert len(shares) == 3 and min(shares) >= 0.5
    assert torch.equal(brain.compute_forward(batch, sb.Stage.VALID), modules["embedding_model"](batch.signal.data))


def test_weights_of_a_compiled_module_have_the_names_that_it_is_loaded_by():
    layer = torch.nn.Linear(2, 2)
    assert _inside(torch.compile(layer, backend="eager")) is layer and _inside(layer) is layer


def test_checkpoints_are_of_the_best_epochs_and_of_one_a_minute(monkeypatch):
    for direction, sign in (("max", 1), ("min", -1)):
        brain = EncoderBrain(modules={"network": torch.nn.Linear(1, 1)}, hparams={"epoch_counter": Counter()})
        monkeypatch.setattr(brain.hparams.epoch_counter, "direction", direction)
        results = [0.5, 0.6, 0.55, 0.6, 0.5, 0.5, 0.7]  # the third is no best one, nor are the fifth and the sixth
        clock = iter([100, 110, 120, 130, 191, 192, 193])
        kept = []
        for result in results:
            now = next(clock)
            monkeypatch.setattr(brain_module.time, "monotonic", lambda now=now: now)
            kept.append(brain._is_to_be_kept(sign * result))
        assert kept == [True, True, False, True, True, False, True]


def test_what_is_settled_lets_its_audio_go(tmp_path):
    class Audio(Dataset):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return {"id": "one"}

    checkpointer = WholeCheckpointer(tmp_path)
    brain = EncoderBrain({"network": torch.nn.Linear(1, 1)}, checkpointer=checkpointer)
    loader = SaveableDataLoader(Audio())
    checkpointer.add_recoverable("train_loader", loader)
    brain.reference_loader = brain.valid_loader = DataLoader(loader.dataset)
    audio = weakref.ref(loader.dataset)
    del loader
    gc.collect()
    assert audio() is not None
    brain.settle()
    assert audio() is None
