"""SpeechBrain's VoxCeleb and IEMOCAP recipes in small: how they call what their YAML names, on generated audio.

Run by torchrun (YAML, block, output folder) it trains in several processes, and holds their weights against each other.
"""

import sys
from pathlib import Path

import speechbrain as sb
import torch
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.dataio.encoder import CategoricalEncoder

from ser_plugins import configuration
from ser_plugins.training import processes

RATE, CLASSES = 16000, 4


class SpeakerBrain(sb.Brain):
    """``train_speaker_embeddings.py``: the network is not given the lengths."""

    def embed(self, feats, lens):
        return self.modules.embedding_model(feats)

    def compute_forward(self, batch, stage):
        wavs, lens = batch.to(self.device).sig
        if stage == sb.Stage.TRAIN and hasattr(self.hparams, "wav_augment"):
            wavs, lens = self.hparams.wav_augment(wavs, lens)
        feats = self.modules.compute_features(wavs)
        feats = self.modules.mean_var_norm(feats, lens)
        return self.modules.classifier(self.embed(feats, lens)), lens

    def compute_objectives(self, predictions, batch, stage):
        (outputs, lens), (labels, _) = predictions, batch.label_encoded
        if stage == sb.Stage.TRAIN and hasattr(self.hparams, "wav_augment"):
            labels = self.hparams.wav_augment.replicate_labels(labels)
        loss = self.hparams.compute_cost(outputs, labels, lens)
        if stage == sb.Stage.TRAIN:
            self.hparams.lr_annealing.on_batch_end(self.optimizer)
        else:
            self.error_metrics.append(batch.id, outputs, labels, lens)
        return loss

    def on_stage_start(self, stage, epoch=None):
        self.error_metrics = self.hparams.error_stats()

    def on_stage_end(self, stage, stage_loss, epoch=None):
        if stage == sb.Stage.TRAIN:
            self.losses = [*getattr(self, "losses", []), float(stage_loss)]
        else:
            self.valid_losses = [*getattr(self, "valid_losses", []), float(stage_loss)]
            self.error = self.error_metrics.summarize("average")
            self.errors = [*getattr(self, "errors", []), self.error]
            sb.nnet.schedulers.update_learning_rate(self.optimizer, self.hparams.lr_annealing(epoch)[1])
            self.checkpointer.save_and_keep_only(meta={"ErrorRate": self.error}, min_keys=["ErrorRate"])


class EmoIdBrain(SpeakerBrain):
    """``emotion_recognition/train.py``: the network is given the lengths, by position."""

    def embed(self, feats, lens):
        return self.modules.embedding_model(feats, lens)


class Wav2Vec2Brain(SpeakerBrain):
    """``train_with_wav2vec2.py``: two optimizers, the second of what ``model`` lists."""

    def compute_forward(self, batch, stage):
        wavs, lens = batch.to(self.device).sig
        outputs = self.hparams.avg_pool(self.modules.wav2vec2(wavs, lens), lens)
        outputs = self.modules.output_mlp(outputs.view(outputs.shape[0], -1))
        return self.hparams.log_softmax(outputs).unsqueeze(1), lens

    def init_optimizers(self):
        weights = {"wav2vec2": self.modules.wav2vec2.parameters(), "optimizer": self.hparams.model.parameters()}
        self.optimizers_dict = {name: self.opt_class(parameters) for name, parameters in weights.items()}
        self.optimizer = self.optimizers_dict["optimizer"]


BRAINS = {"voxceleb": SpeakerBrain, "iemocap": EmoIdBrain, "wav2vec2": Wav2Vec2Brain}
EMOTIONS = ["neu", "hap", "sad", "ang"]  # in the order of the training part


def dataset(count, seconds, seed):
    """Tones in noise, a pitch a class; each as long as one of ``seconds``."""
    draw = torch.Generator().manual_seed(seed)
    rows = {}
    for i in range(count):
        time = torch.arange(int(seconds[i // CLASSES % len(seconds)] * RATE)) / RATE
        tone = torch.sin(2 * torch.pi * 300 * 2 ** (i % CLASSES) * time)
        rows[f"{seed}-{i}"] = {
            "sig": 0.3 * tone + 0.05 * torch.randn(len(time), generator=draw),
            "label_encoded": torch.tensor([i % CLASSES]),
        }
    return DynamicItemDataset(rows, output_keys=["id", "sig", "label_encoded"])


def write_labels(save_folder):
    """Number the labels as the recipe does after it has built its YAML: by their first occurrence."""
    encoder = CategoricalEncoder()
    encoder.update_from_iterable(EMOTIONS, sequence_input=False)
    save_folder.mkdir(parents=True, exist_ok=True)
    encoder.save(save_folder / "label_encoder.txt")


def prepare(name, block, output, options=None, **changes):
    """Make the Brain of a recipe (voxceleb, iemocap or wav2vec2), with some of its keys replaced by a block of YAML."""
    text = Path(__file__).with_name(f"{name}.yaml").read_text(encoding="utf-8")
    tree = configuration.YAML().load(text)
    tree |= configuration.YAML().load(block) or {}
    hparams = configuration.build({**tree, **changes, "output_folder": str(output)})
    write_labels(Path(hparams["save_folder"]))
    return BRAINS[name](
        hparams["modules"], hparams["opt_class"], hparams, options or {"device": "cpu"}, hparams["checkpointer"]
    )


def train(brain):
    """Train as the recipe does: the VoxCeleb one on crops of one length, IEMOCAP's on whole utterances."""
    seconds = [0.4] if type(brain) is SpeakerBrain else [0.3, 0.5, 0.4]
    options = {**brain.hparams.dataloader_options}
    brain.noprogressbar = True
    brain.fit(
        brain.hparams.epoch_counter,
        dataset(32, seconds, 1),
        dataset(16, seconds, 2),
        train_loader_kwargs=dict(options),
        valid_loader_kwargs=dict(options),
    )
    return brain


def agree(name, block, output, options):
    """Train in several processes, make sure that they end with the same weights, and return the loss."""
    brain = train(prepare(name, Path(block).read_text(encoding="utf-8"), output, options, number_of_epochs=1))
    for weight, value in brain.modules.embedding_model.state_dict().items():
        first = value.clone()
        torch.distributed.broadcast(first, 0)
        assert torch.equal(first, value), weight
    return brain.losses[0]


def main(name, block, output):
    """Train in several processes."""
    torch.set_num_threads(1)
    _, options, _ = sb.parse_arguments(["none.yaml"])
    loss = agree(name, block, output, processes.join(options))
    assert torch.distributed.get_world_size() == 2
    if torch.distributed.get_rank() == 0:
        print(f"loss {loss}")
    processes.leave()


if __name__ == "__main__":
    main(*sys.argv[1:])
