"""Distillation: targets against plain loops, aligned crops, and a student that learns."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import speechbrain as sb
import torch
from speechbrain.augment.augmenter import Augmenter
from speechbrain.augment.time_domain import SpeedPerturb
from speechbrain.dataio.batch import PaddedBatch
from torch import nn
from torch.utils.data import DataLoader

from ser_plugins import (
    CAMPPlus,
    GhostVLAD,
    KaldiFbank,
    MeanNorm,
    SEResNet34,
    Spectrogram,
    SpectrogramNorm,
    SpeechNormalizer,
    UtteranceEncoder,
    configuration,
)
from ser_plugins.corpora.shards import decode_flac, read_shard, write_shards
from ser_plugins.corpora.speakers import SpeakerFolders, split_speakers
from ser_plugins.errors import InputError
from ser_plugins.model_folder.lineage import Training, file_sha256, write_lineage
from ser_plugins.training import DistillationLoss, Teacher, WeightAverage
from ser_plugins.training.distillation import (
    AlignedStream,
    DistillationBrain,
    Student,
    TargetStream,
    aligned_crop,
    trained_shards,
)
from ser_plugins.training.run import ssl_lineage
from ser_plugins.training.stream import StreamLoader
from ser_plugins.training.teacher import BLOCK, TeacherFolder, averaging, compute_targets

SPEAKERS, TAKES, HELD_OUT = 6, 5, 2
TREE = {"teacher_network": "levels"}


class Levels(nn.Module):
    """A backbone on waveforms: levels of six bands of each 20 ms, through random weights."""

    output_size = 10

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 10)

    def forward(self, wavs, lengths):
        frames = wavs.unfold(1, 320, 320)
        bands = torch.fft.rfft(frames).abs()[..., :150].unflatten(2, (6, 25)).mean(3)
        counts = (lengths * wavs.shape[1] / 320 + 0.01).long()
        return torch.tanh(self.linear((1 + bands).log())), counts / frames.shape[1]


class Nothing(nn.Module):
    def forward(self, feats, lengths=None):
        return feats


def make_teacher(seed=0):
    torch.manual_seed(seed)
    return Teacher(Nothing(), Nothing(), Levels())


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    """Shards of six speakers, two of them in the trial pairs."""
    folder, rng = tmp_path_factory.mktemp("speech"), np.random.default_rng(0)
    for speaker in range(SPEAKERS):
        for take in range(TAKES):
            path = folder / "corpus" / f"id{speaker}" / f"{take}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            size = int(rng.integers(4000, 12000))
            time = np.arange(size) / 16000
            tone = np.sin(2 * np.pi * rng.uniform(200, 3000) * time) * np.abs(np.sin(9 * time + take))
            soundfile.write(path, 0.3 * tone + 0.02 * rng.normal(size=size), 16000)
    split = split_speakers(SpeakerFolders(str(folder / "corpus")).read(), HELD_OUT, 40, 1)
    return write_shards(*split, SpeechNormalizer(vad="none"), folder / "shards", shard_size=8, workers=1)


@pytest.fixture(scope="module")
def targets(speech):
    return compute_targets(speech, make_teacher(), TREE)


def utterances(shards):
    return {name: decode_flac(data) for shard in shards for name, _, data in read_shard(shard.path)}


@pytest.mark.parametrize(("outputs", "inputs", "width", "first"), [(5, 9, 2, -1), (6, 9, 1.5, 0), (4, 3, 0.5, -0.25)])
def test_frames_are_averaged_by_their_part_in_the_interval(outputs, inputs, width, first):
    values = np.random.default_rng(0).normal(size=inputs)
    found = averaging(outputs, inputs, width, first).numpy() @ values
    for k in range(outputs):
        start = first + k * width
        places = np.arange(start, start + width, 1e-4) + 5e-5
        inside = [values[int(place)] for place in places if 0 <= place < inputs]
        assert found[k] == pytest.approx(np.mean(inside), abs=1e-3)


def test_an_interval_after_the_last_frame_takes_that_frame():
    assert averaging(4, 2, 1, 0).tolist() == [[1, 0], [0, 1], [0, 1], [0, 1]]


def test_a_period_is_measured():
    assert Teacher(KaldiFbank(), MeanNorm(), CAMPPlus(1)).period == 320
    assert Teacher(Spectrogram(), SpectrogramNorm(), SEResNet34([4, 4, 4, 4])).period == 2560


def test_a_teacher_describes_a_batch_as_each_utterance_alone():
    torch.manual_seed(0)
    frames, whole = CAMPPlus(1).eval(), CAMPPlus(None).eval()
    teacher = Teacher(KaldiFbank(), MeanNorm(), frames, whole)
    sizes = [16000, 9000]
    signals = [torch.randn(size) for size in sizes]
    wavs = nn.utils.rnn.pad_sequence(signals, batch_first=True)
    blocks, embeddings = teacher(wavs, torch.tensor(sizes) / max(sizes))
    for signal, found, embedding in zip(signals, blocks, embeddings, strict=True):
        feats = KaldiFbank()(signal[None])
        feats = feats - feats.mean(1, keepdim=True)
        with torch.no_grad():
            descriptors = frames(feats)[0][0]
            torch.testing.assert_close(embedding, whole.embed(feats)[0], atol=1e-4, rtol=1e-4)
        assert len(found) == -(-len(signal) // BLOCK)
        for k, block in enumerate(found):  # four frames of 20 ms each; after the last frame, that one
            expected = descriptors[4 * k : 4 * k + 4] if 4 * k < len(descriptors) else descriptors[-1:]
            torch.testing.assert_close(block, expected.mean(0), atol=1e-4, rtol=1e-4)


def test_the_embedding_of_a_teacher_without_one_is_the_mean_of_its_frames():
    teacher, wavs = make_teacher(), torch.randn(1, 3200)
    expected = teacher.backbone(wavs, torch.ones(1))[0].mean(1)
    torch.testing.assert_close(teacher(wavs, torch.ones(1))[1], expected)


def test_what_was_computed_is_read_back_in_half_precision(speech, targets):
    teacher = make_teacher()
    for part in speech.index["parts"]:
        for shard in speech.part(part):
            known, signals = targets.read(shard), utterances([shard])
            assert known.keys() == signals.keys()
            for name, (frames, embedding) in known.items():
                blocks, embeddings = teacher(torch.from_numpy(signals[name])[None], torch.ones(1))
                assert frames.dtype == np.float16
                np.testing.assert_allclose(frames, blocks[0], atol=1e-3)
                np.testing.assert_allclose(embedding, embeddings[0], atol=1e-5)


def test_the_statistics_are_those_of_the_frames_that_are_trained_on(speech, targets):
    known = [pair for shard in trained_shards(speech) for pair in targets.read(shard).values()]
    frames = np.concatenate([frames for frames, _ in known]).astype(np.float64)
    directions = [embedding / np.linalg.norm(embedding) for _, embedding in known]
    scale = targets.scale(trained_shards(speech))
    np.testing.assert_allclose(scale.mean, frames.mean(0), atol=1e-3)
    np.testing.assert_allclose(scale.deviation, frames.std(0), atol=1e-3)
    np.testing.assert_allclose(scale.center, np.mean(directions, 0), atol=1e-6)


def test_features_are_computed_once_and_what_is_missing_is_added(speech, targets, monkeypatch):
    written, original = [], TeacherFolder.write

    def write(own, shard, teacher):
        written.append(shard)
        original(own, shard, teacher)

    monkeypatch.setattr(TeacherFolder, "write", write)
    assert compute_targets(speech, make_teacher(), TREE) == targets and not written
    shard = speech.part("train")[1]
    before = targets.read(shard)
    targets.path(shard).unlink()
    compute_targets(speech, make_teacher(), TREE)
    assert written == [shard]
    assert all(np.array_equal(one[0], before[name][0]) for name, one in targets.read(shard).items())
    assert not [path for path in targets.folder.iterdir() if path.name.startswith(".")]


def test_another_teacher_has_a_folder_of_its_own(speech, targets):
    assert compute_targets(speech, make_teacher(seed=1), TREE).folder != targets.folder
    assert compute_targets(speech, make_teacher(), {"teacher_network": "others"}).folder != targets.folder


def test_a_file_that_was_not_finished_is_not_there(speech, tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    teacher = make_teacher()
    for name, place in {"forward": Teacher, "savez": np}.items():
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(place, name, stop)
            TeacherFolder(tmp_path).write(speech.part("train")[0], teacher)
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("size", [600, BLOCK, 3 * BLOCK + 500, 10 * BLOCK, 40 * BLOCK + 7])
@pytest.mark.parametrize("where", [0.0, 0.37, 0.999999])
def test_a_crop_has_the_frames_of_its_own_samples(size, where):
    """Each sample holds the number of its block, and so does each frame."""
    signal = 1.0 + np.arange(size) // BLOCK
    frames = 1.0 + np.arange(-(-size // BLOCK))[:, None]
    found, cut = aligned_crop(signal, frames, 10, where)
    assert found.shape == (10 * BLOCK,) and cut.shape == (10, 1)
    for block, frame in zip(found.reshape(10, BLOCK), cut.ravel(), strict=True):
        assert set(block) <= {frame, 0.0} and (0.0 not in block or size < BLOCK)
    assert set(np.diff(cut.ravel())) <= {1.0, 1.0 - max(1, size // BLOCK)}


def test_all_crops_of_a_clip_are_cut():
    places = np.linspace(0, 0.999, 50)
    cuts = [aligned_crop(np.zeros(12 * BLOCK), np.arange(12)[:, None], 10, where)[1] for where in places]
    assert {int(cut[0, 0]) for cut in cuts} == {0, 1, 2}


def test_no_utterance_of_a_held_out_speaker_is_trained_on(speech, targets):
    loader = StreamLoader(AlignedStream(trained_shards(speech), targets, 4, 0.3, seed=1))
    loader.set_epoch(1)
    heard = [name for batch in loader for name in batch.id]
    validated = [example["id"] for batch in TargetStream(speech.part("trials"), targets) for example in batch]
    speakers = [{Path(name).parts[0] for name in names} for names in (heard, validated)]
    assert not speakers[0] & speakers[1]
    assert (len(speakers[0]), len(speakers[1])) == (SPEAKERS - HELD_OUT, HELD_OUT)
    assert len(heard) == len(set(heard)) == (SPEAKERS - HELD_OUT) * TAKES
    assert len(validated) == HELD_OUT * TAKES


def test_a_stream_goes_on_where_a_checkpoint_was_made(speech, targets, tmp_path):
    def make():
        loader = StreamLoader(AlignedStream(trained_shards(speech), targets, 3, 0.3, seed=1))
        loader.set_epoch(2)
        return loader

    expected = list(make())
    broken = make()
    batches = iter(broken)
    for _ in range(2):
        next(batches)
    broken._save(str(tmp_path / "loader"))
    resumed = make()
    resumed._load(str(tmp_path / "loader"), end_of_epoch=False)
    for one, other in zip(resumed, expected[2:], strict=True):
        assert one.id == other.id
        assert torch.equal(one.signal.data, other.signal.data) and torch.equal(one.frames.data, other.frames.data)


def test_the_loss_is_that_of_plain_loops():
    torch.manual_seed(0)
    own, predicted = torch.randn(4, 6), torch.randn(4, 3)
    wanted = nn.functional.normalize(torch.randn(4, 3), dim=1)

    def cosine(a, b):
        return float(a @ b / a.norm() / b.norm())

    pairs = [(i, j) for i in range(4) for j in range(4) if i != j]
    relation = sum((cosine(own[i], own[j]) - cosine(wanted[i], wanted[j])) ** 2 for i, j in pairs) / len(pairs)
    mean = sum(map(cosine, predicted, wanted)) / 4
    loss, found = DistillationLoss(0.3, 2.0)(torch.tensor(0.7), own, predicted, wanted)
    assert float(found) == pytest.approx(mean, abs=1e-6)
    assert float(loss) == pytest.approx(0.7 + 0.3 * (1 - mean) + 2 * relation, abs=1e-5)


@pytest.mark.parametrize("name", ["embedding", "relation"])
def test_a_negative_weight_is_refused(name):
    with pytest.raises(ValueError, match=f"the weight {name} of the distillation loss must be 0 or more, got -1"):
        DistillationLoss(**{name: -1})


def make_brain(speech, targets, **hparams):
    torch.manual_seed(0)
    scale = targets.scale(trained_shards(speech))
    encoder = UtteranceEncoder(SEResNet34([4, 4, 8, 8], [1, 1, 1, 1]), GhostVLAD(8, 4, 1), 16)
    modules = {
        "compute_features": Spectrogram(),
        "mean_var_norm": SpectrogramNorm(),
        "embedding_model": Student(encoder, len(scale.mean), len(scale.center)),
        "classifier": nn.Identity(),
    }
    extra = {"targets": targets, "scale": scale, "trials": speech, "distillation_loss": DistillationLoss(), **hparams}
    return DistillationBrain(modules, partial(torch.optim.Adam, lr=0.01), extra)


def make_loaders(speech, targets):
    train = StreamLoader(AlignedStream(trained_shards(speech), targets, 10, 0.4, seed=1))
    valid = DataLoader(TargetStream(speech.part("trials"), targets), batch_size=None, collate_fn=PaddedBatch)
    return train, valid


def test_a_student_learns_its_teacher(speech, targets):
    log = []
    logger = SimpleNamespace(log_stats=lambda facts, train_stats, valid_stats: log.append((train_stats, valid_stats)))
    brain = make_brain(speech, targets, train_logger=logger, weight_average=WeightAverage(0.5))
    brain.fit(range(1, 13), *make_loaders(speech, targets))
    (train, first), (learned, last) = log[0], log[-1]
    assert learned["frame_error"] < 0.6 * train["frame_error"] and learned["cosine"] > 0.7 > train["cosine"]
    assert last["frame_error"] < 0.7 < first["frame_error"]  # of speakers not heard; the mean of the frames has 1
    assert 0 <= last["eer"] <= 1


def test_validation_compares_each_descriptor_with_the_frames_around_it(speech, targets):
    """Against a loop over utterances alone: descriptor j is in the middle of 160 ms, j · 160 ms after the start."""
    brain = make_brain(speech, targets)
    _, valid = make_loaders(speech, targets)
    brain.on_stage_start(sb.Stage.VALID)
    for batch in valid:
        brain.evaluate_batch(batch, sb.Stage.VALID)
    errors, cosines = [], []
    student, scale = brain.modules.embedding_model.eval(), brain.hparams.scale
    known = {name: pair for shard in speech.part("trials") for name, pair in targets.read(shard).items()}
    for name, signal in utterances(speech.part("trials")).items():
        with torch.no_grad():
            feats = SpectrogramNorm()(Spectrogram()(torch.from_numpy(signal)[None]))
            _, predicted, _, direction = student(feats)
        blocks = (torch.from_numpy(known[name][0]).float() - scale.mean) / scale.deviation
        for j, frame in enumerate(predicted[0]):
            around = [k for k in (2 * j - 1, 2 * j) if 0 <= k < len(blocks)]
            errors.append((frame - blocks[around].mean(0)).square().mean())
        wanted = torch.from_numpy(known[name][1] / np.linalg.norm(known[name][1])) - scale.center
        cosines.append(torch.cosine_similarity(direction[0], wanted, dim=0))
    found = brain.validate()
    assert found["frame_error"] == pytest.approx(float(torch.stack(errors).mean()), rel=1e-4)
    assert found["cosine"] == pytest.approx(float(torch.stack(cosines).mean()), abs=1e-4)


def test_copies_of_an_augmenter_have_the_targets_of_their_utterance(speech, targets):
    """An augmenter that adds the utterance unchanged doubles the batch and leaves its errors."""
    found = []
    doubling = Augmenter(concat_original=True, augmentations=[Nothing()])
    for copies, augmenter in ((1, None), (2, doubling)):
        brain = make_brain(speech, targets, wav_augment=augmenter)
        brain.on_fit_start()
        train, _ = make_loaders(speech, targets)
        brain.on_stage_start(sb.Stage.TRAIN, 1)
        brain.modules.eval()
        batch = next(iter(train))
        predictions = brain.compute_forward(batch, sb.Stage.TRAIN)
        assert len(predictions[0]) == 10 * copies
        brain.compute_objectives(predictions, batch, sb.Stage.TRAIN)
        found.append({name: values[0] for name, values in brain.statistics.items()})
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_an_augmentation_that_changes_the_speed_is_refused(speech, targets):
    with pytest.raises(InputError, match="wav_augment changes the speed, and the teacher's frames do not"):
        make_brain(speech, targets, wav_augment=Augmenter(augmentations=[SpeedPerturb(16000)]))


def test_crops_shorter_than_a_block_are_refused(speech, targets):
    with pytest.raises(InputError, match=r"crop_seconds 0.05 is shorter than a teacher's frame; give 0.08 or more"):
        AlignedStream(trained_shards(speech), targets, 4, 0.05, 1)


def write_teacher(folder, state):
    folder.mkdir()
    torch.save({f"backbone.{name}": weight for name, weight in state.items()}, folder / "embedding_model.ckpt")
    return folder


def test_a_teacher_takes_the_weights_and_the_lineage_of_its_folder(tmp_path):
    theirs, teacher = make_teacher(seed=5), make_teacher()
    folder = write_teacher(tmp_path / "teacher", theirs.backbone.state_dict())
    record = Training("run", "published", "speech", None, 0, file_sha256(folder / "embedding_model.ckpt"))
    write_lineage(folder, [record])
    assert teacher.sha256() != theirs.sha256()
    assert teacher.load(str(folder)) == (record,)
    assert teacher.sha256() == theirs.sha256()
    assert teacher.load("own") == ()


def test_two_teachers_describe_the_same_frames(tmp_path, write_ssl):
    torch.manual_seed(6)
    whole = CAMPPlus(block=None)
    folder = write_teacher(tmp_path / "teacher", whole.state_dict())
    frames = {"conv_kernel": [10, 9, 9], "conv_stride": [5, 8, 8]}  # of 20 ms, as those of CAM++
    changes = {"ssl_source": str(write_ssl(tmp_path / "source", **frames)), "layer": 1, "data_folder": "speech"}
    tree = configuration.compose("distil_joint", "speakers", changes)
    teacher = configuration.build(tree)["teacher_network"]
    teacher.load(str(folder))
    assert [one.start for one in ssl_lineage(tree, teacher)] == [changes["ssl_source"]]
    assert ssl_lineage(tree, whole) == ()
    clip = 0.1 * torch.randn(1, 12800)
    [blocks], embedding = teacher(clip, torch.ones(1))
    feats = MeanNorm()(KaldiFbank()(clip))
    torch.testing.assert_close(embedding, whole.eval().embed(feats))
    alone = Teacher(KaldiFbank(), MeanNorm(), CAMPPlus(block=2))
    alone.load(str(folder))
    assert blocks.shape == (10, 1024 + 16)
    torch.testing.assert_close(blocks[:9, :1024], alone(clip, torch.ones(1))[0][0][:9], atol=1e-4, rtol=1e-3)


def test_a_wrong_teacher_is_one_line(tmp_path):
    wrong = write_teacher(tmp_path / "wrong", {"linear.bias": torch.zeros(10), "linear.weight": torch.zeros(3, 6)})
    cases = {
        str(
            wrong
        ): r"lacks 1 of the 2 arrays of Levels, as linear.weight; give --teacher the folder of recipes/convert",
        str(tmp_path): "holds no embedding_model.ckpt",
        None: "a student needs a teacher; give --teacher the folder of recipes/convert.py campplus",
    }
    for source, says in cases.items():
        with pytest.raises(InputError, match=says) as caught:
            make_teacher().load(source)
        assert "\n" not in str(caught.value)


def test_a_speaker_network_without_embeddings_is_refused():
    with pytest.raises(ValueError, match="the teacher's Linear has no method embed; leave it out"):
        Teacher(Nothing(), Nothing(), Levels(), nn.Linear(2, 2))


def test_the_preset_is_built():
    tree = configuration.compose("distil", "speakers", {"embedding_weight": 0.1, "data_folder": ["one", "two"]})
    made = configuration.build(tree)
    assert made["distillation_loss"].embedding == 0.1 and made["reader"].data_folder == ["one", "two"]
    assert made["teacher_network"].backbone.block == 2 and made["teacher_network"].speaker.block is None
    assert not any(weight.requires_grad for weight in made["teacher_network"].parameters())
