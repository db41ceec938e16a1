"""Large pre-trained networks of the library transformers as backbones: wav2vec 2.0, HuBERT, WavLM, Whisper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from ser_plugins.errors import InputError
from ser_plugins.lengths import count_samples, relative_lengths
from ser_plugins.models.whisper import WINDOW, WhisperStates

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WHISPER = "whisper"
KINDS = ("wav2vec2", "hubert", "wavlm", WHISPER)
# A layer that is skipped has no output to be weighted; masks longer than a short utterance are refused.
SETTINGS = {"layerdrop": 0.0, "mask_time_prob": 0.0, "mask_feature_prob": 0.0, "add_adapter": False}


class SSLBackbone(nn.Module):
    """Waveform in, descriptors of its 20 ms frames out: the weighted sum of a pre-trained network's layers.

    The weights of the layers are a softmax of learned numbers, as in SUPERB (Yang et al., Interspeech 2021). A
    descriptor is normalised to zero mean and unit variance: residual streams differ in scale by orders of magnitude
    from network to network, and soft assignments, as those of `GhostVLAD`, depend on it.

    Utterances of one length are computed together, others apart. Most of these networks normalise over time or
    convolve over the border, so that no mask keeps padding out of them; this way an utterance has the descriptors that
    it has alone. Crops of one length, as in training, cost nothing by it.

    Parameters
    ----------
    source : str or mapping
        Folder or Hub id of a wav2vec 2.0, HuBERT, WavLM or Whisper with its weights; or the ``description`` of one,
        which is built with random weights, for a checkpoint to fill. Of a Whisper, the encoder is taken.
    freeze : bool
        Keep the network as it is, without dropout, and learn the weights of its layers alone. Otherwise all of it but
        the convolutions under its transformer is fine-tuned, as the papers of wav2vec 2.0, HuBERT and WavLM do it.
    layer : int, optional
        Take the output of this layer alone: 0 is the input of the first. If not given, all layers are weighted.

    Attributes
    ----------
    description : dict
        The network's configuration, and whether it takes waveforms of zero mean and unit variance (``do_normalize``).
    output_size : int
        Size D of a descriptor.

    Raises
    ------
    InputError
        If transformers is missing, the source gives no such network, or it has no such layer.

    Example
    -------
    >>> size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    >>> backbone = SSLBackbone({"model_type": "wavlm", "do_normalize": False, **size})
    >>> descriptors, lengths = backbone(torch.randn(2, 16000), torch.tensor([1.0, 0.5]))
    >>> descriptors.shape, lengths
    (torch.Size([2, 49, 32]), tensor([1.0000, 0.4898]))
    """

    network: Any

    def __init__(self, source: str | Mapping[str, Any], freeze: bool = True, layer: int | None = None) -> None:
        super().__init__()
        self.description = describe(source) if isinstance(source, str) else dict(source)
        self.network = load(source, self.description) if isinstance(source, str) else build(self.description)
        config = self.network.config
        self.output_size = int(config.hidden_size)
        whisper = isinstance(self.network, WhisperStates)
        self.frame_samples = WINDOW if whisper else frame_samples(config.conv_kernel, config.conv_stride)
        if layer is not None and not 0 <= layer <= config.num_hidden_layers:
            raise InputError(f"layer {layer} is none of 0 to {config.num_hidden_layers}, the layers of the network")
        self.layer = layer
        if layer is None:
            self.layer_weights = nn.Parameter(torch.zeros(config.num_hidden_layers + 1))
        self.freeze = freeze
        self._fixed.requires_grad_(False)
        self.train()

    @property
    def _fixed(self) -> nn.Module:
        fixed: nn.Module = self.network if self.freeze else self.network.feature_extractor
        return fixed

    def train(self, mode: bool = True) -> SSLBackbone:
        """Set the mode; what does not learn stays in that of evaluation."""
        super().train(mode)
        self._fixed.eval()
        return self

    def forward(self, wavs: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Describe waveforms.

        Parameters
        ----------
        wavs : torch.Tensor
            At 16 kHz, [B, T]. An utterance ends at its last sample that is not zero.
        lengths : torch.Tensor, optional
            Relative lengths, [B].

        Returns
        -------
        descriptors : torch.Tensor
            [B, T'', D]; padded descriptors are zero.
        lengths : torch.Tensor
            Relative lengths of the descriptors, [B].
        """
        samples = count_samples(wavs, lengths)
        found: dict[int, Tensor] = {}
        for count in set(samples.tolist()):
            rows = (samples == count).nonzero().squeeze(1)
            found.update(zip(rows.tolist(), self._describe(wavs[rows, :count]), strict=True))
        descriptors = [found[row] for row in range(len(wavs))]
        frames = torch.tensor([len(one) for one in descriptors], device=wavs.device)
        return pad_sequence(descriptors, batch_first=True), relative_lengths(frames, int(frames.max()))

    def _describe(self, wavs: Tensor) -> Tensor:
        """Describe utterances of one length, [B, T], by [B, T'', D]; less than a frame is filled up with zeros."""
        if self.description["do_normalize"]:
            wavs = functional.layer_norm(wavs, wavs.shape[1:], eps=1e-7)
        wavs = functional.pad(wavs, (0, max(0, self.frame_samples - wavs.shape[1])))
        states = self._states(wavs)
        if self.layer is None:
            mixture = (self.layer_weights.softmax(0)[:, None, None, None] * torch.stack(states)).sum(0)
        else:
            mixture = states[self.layer]
        return functional.layer_norm(mixture, mixture.shape[2:])

    def _states(self, wavs: Tensor) -> list[Tensor]:
        """Compute the input of the first layer and the output of each layer, [B, T'', D]."""
        if isinstance(self.network, WhisperStates):
            states: list[Tensor] = self.network(wavs, self.layer)
            return states
        output = self.network(wavs, output_hidden_states=True)
        # Some networks normalise what their last layer gives.
        return [*output.hidden_states[:-1], output.last_hidden_state]


def describe(source: str) -> dict[str, Any]:
    """Read the configuration of a network: all that `build` needs, as plain numbers and words.

    Raises
    ------
    InputError
        If ``source`` is no folder or Hub id of a wav2vec 2.0, HuBERT, WavLM or Whisper.
    """
    transformers = library()
    try:
        config = transformers.AutoConfig.from_pretrained(source).to_diff_dict()
        extractor = transformers.AutoFeatureExtractor.from_pretrained(source)
    except (OSError, ValueError, AttributeError) as error:
        raise _unusable(source, str(error)) from error
    if config["model_type"] not in KINDS:
        raise _unusable(source, f"it is {config['model_type']}")
    normalize = getattr(extractor, "do_normalize", False)  # the waveform
    passing = ("architectures", "dtype", "transformers_version")  # of the file, not of the network
    return {**{key: value for key, value in config.items() if key not in passing}, "do_normalize": bool(normalize)}


def build(description: Mapping[str, Any]) -> nn.Module:
    """Build a network with random weights."""
    return _encoder(library().AutoModel.from_config(_configuration(description), dtype=torch.float32))


def load(source: str, description: Mapping[str, Any]) -> nn.Module:
    """Build a network with the weights of its source, all of them.

    Raises
    ------
    InputError
        If the source lacks weights.
    """
    try:
        network, report = library().AutoModel.from_pretrained(
            source, config=_configuration(description), dtype=torch.float32, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise _unusable(source, str(error)) from error
    missing = sorted(name for name in report["missing_keys"] if not name.startswith("decoder."))
    if missing:
        raise _unusable(source, f"it lacks {', '.join(missing)}")
    return _encoder(network)


def _encoder(network: PreTrainedModel) -> nn.Module:
    return WhisperStates(network) if network.config.model_type == WHISPER else network


def frame_samples(kernels: Sequence[int], strides: Sequence[int]) -> int:
    """Samples that the first frame of a stack of convolutions sees.

    Example
    -------
    >>> frame_samples([10, 3, 3, 3, 3, 2, 2], [5, 2, 2, 2, 2, 2, 2])
    400
    """
    samples = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        samples = (samples - 1) * stride + kernel
    return samples


def library() -> Any:
    """Import transformers, an optional dependency."""
    try:
        import transformers  # noqa: PLC0415
    except ImportError as error:
        raise InputError('networks of transformers need that library; pip install "ser-plugins[ssl]"') from error
    return transformers


def _configuration(description: Mapping[str, Any]) -> Any:
    """Configure a network by the settings that its kind has: others can name code that would be fetched and run."""
    kind, make = description.get("model_type"), library().AutoConfig.for_model
    if kind not in KINDS:
        raise InputError(f"a description of {kind!r} is none of a pre-trained network; give one of {', '.join(KINDS)}")
    known = make(kind).to_dict()
    return make(**{**{key: value for key, value in description.items() if key in known}, **SETTINGS})


def _unusable(source: str, reason: str) -> InputError:
    first = reason.strip().split("\n", maxsplit=1)[0].rstrip(".")
    remedy = "give a folder or a Hub id of a wav2vec 2.0, HuBERT, WavLM or Whisper"
    return InputError(f"{source} gives no pre-trained network ({first}); {remedy}")
