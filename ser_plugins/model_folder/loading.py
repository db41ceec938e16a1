"""Load a model folder as SpeechBrain's ``EncoderClassifier``, without running any code from it."""

from __future__ import annotations

from pathlib import Path

from speechbrain.inference.classifiers import EncoderClassifier
from torch import Tensor

from ser_plugins.audio.checks import is_silent
from ser_plugins.audio.speaker import SpeakerStatistics
from ser_plugins.audio.speech import normalize_file
from ser_plugins.errors import InputError
from ser_plugins.model_folder.forward import embed
from ser_plugins.model_folder.interface import LabelEncoder, UnitLength
from ser_plugins.model_folder.layout import CONFIG, WEIGHTS
from ser_plugins.model_folder.plain import check_device, read_parts, telling
from ser_plugins.model_folder.source import EMOTIONS, find_folder

__all__ = ["UtteranceClassifier", "check_device", "load"]
Decision = tuple[Tensor, Tensor, Tensor, list[str]]


class UtteranceClassifier(EncoderClassifier):  # type: ignore[misc]
    """SpeechBrain's ``EncoderClassifier`` for local audio files, with clear errors and statistics of a speaker.

    Attributes
    ----------
    checksum : str
        SHA-256 of the model: of its configuration, labels and weights.
    """

    checksum: str

    def load_audio(self, path: str | Path) -> Tensor:
        """Read an audio file as the model was trained on it.

        Parameters
        ----------
        path : str or pathlib.Path
            Audio file of any sample rate and number of channels.

        Returns
        -------
        torch.Tensor
            Speech, samples [T] at the model's sample rate.

        Raises
        ------
        InputError
            If the file cannot be read, or is too short or silent.
        """
        speech = normalize_file(path, self.audio_normalizer)
        if is_silent(speech.numpy()):
            raise InputError(f"{path}: it is silent; record it again")
        return speech.to(self.device)

    def encode_batch(
        self,
        wavs: Tensor,
        wav_lens: Tensor | None = None,
        normalize: bool = False,
        speaker: SpeakerStatistics | None = None,
    ) -> Tensor:
        """Embed a padded batch.

        Parameters
        ----------
        wavs : torch.Tensor
            Waveforms [B, T], or one waveform [T].
        wav_lens : torch.Tensor, optional
            Relative lengths [B].
        normalize : bool
            Scale the embeddings to unit length.
        speaker : SpeakerStatistics, optional
            Statistics of the speaker of all waveforms, as `ser_plugins.inference.speaker_statistics` returns them.

        Returns
        -------
        torch.Tensor
            Embeddings [B, 1, E].

        Raises
        ------
        InputError
            If an embedding is not finite.
        """
        wavs = (wavs if wavs.dim() > 1 else wavs.unsqueeze(0)).to(self.device).float()
        lengths = None if wav_lens is None else wav_lens.to(self.device)
        embeddings = embed(self.mods, wavs, lengths, speaker)
        if not embeddings.isfinite().all():
            raise InputError("an embedding is not finite; check the waveforms for extreme values, and the model")
        return UnitLength()(embeddings) if normalize else embeddings

    def classify_batch(
        self, wavs: Tensor, wav_lens: Tensor | None = None, speaker: SpeakerStatistics | None = None
    ) -> Decision:
        """Classify a padded batch; parameters as in `encode_batch`.

        Returns
        -------
        tuple
            Log-probabilities [B, C], the highest of each utterance [B], its index [B] and its label (list of B).

        Raises
        ------
        InputError
            If the model has no classes, as a distilled encoder.
        """
        if not len(self.hparams.label_encoder):
            raise InputError("the model has no classes; use encode_batch, or train a classifier on it")
        scores = self.mods.classifier(self.encode_batch(wavs, wav_lens, speaker=speaker)).squeeze(1)
        best, index = scores.max(dim=-1)
        return scores, best, index, self.hparams.label_encoder.decode_torch(index)

    def encode_file(self, path: str | Path, speaker: SpeakerStatistics | None = None) -> Tensor:
        """Embed an audio file: [1, 1, E]; see `load_audio` and `encode_batch`."""
        return self.encode_batch(self.load_audio(path), speaker=speaker)

    def classify_file(self, path: str | Path, speaker: SpeakerStatistics | None = None) -> Decision:
        """Classify an audio file; see `load_audio` and `classify_batch`."""
        return self.classify_batch(self.load_audio(path), speaker=speaker)


def load(source: str | Path = EMOTIONS, revision: str | None = None, device: str | None = None) -> UtteranceClassifier:
    """Load a model folder without running any code from it.

    The model is the same as that of ``EncoderClassifier.from_hparams(source)``. Only ``config.json`` and
    ``model.safetensors`` are read, and only classes of a fixed list are built. The checksum in ``config.json`` detects
    weights that are damaged or of another model; it does not prove who wrote them.

    Parameters
    ----------
    source : str or pathlib.Path
        ``model/`` or ``encoder/`` folder of a run, or USER/NAME on the Hub, from which the two files are downloaded.
        The package holds ``builtin:emotions``, the default, the faster ``builtin:emotions-small``, and
        ``builtin:speakers``.
    revision : str, optional
        Branch, tag or commit on the Hub.
    device : str, optional
        "cpu", "cuda", "cuda:1" …; by default a GPU if there is one.

    Returns
    -------
    UtteranceClassifier
        A subclass of SpeechBrain's ``EncoderClassifier``.

    Raises
    ------
    InputError
        If a file is missing or altered, or names a class that is not in the list.

    Example
    -------
    >>> load(getfixture("tmp_path"))
    Traceback (most recent call last):
        ...
    ser_plugins.errors.InputError: ...config.json is missing; give the model/ or encoder/ folder of a run
    """
    check_device(device)
    folder = find_folder(source, [CONFIG, WEIGHTS], revision)
    parts = read_parts(folder)
    with telling(folder):
        hparams = {
            "audio_normalizer": parts.audio_normalizer,
            "label_encoder": LabelEncoder.from_labels(parts.labels),
        }
        model = UtteranceClassifier(parts.modules, hparams, {"device": device} if device else None)
    model.checksum = parts.checksum
    return model
