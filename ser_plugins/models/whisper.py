"""The encoder of Whisper on waveforms of any length: the states of its layers, without padding to 30 s."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ser_plugins.audio.reading import SAMPLE_RATE

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WINDOW, HOP = 400, 160


class WhisperStates(nn.Module):
    """Waveforms of one length in, the states of the encoder's layers out (Radford et al., ICML 2023).

    Whisper was trained on utterances that silence fills up to 30 s. Its frames describe speech without that silence,
    too, at a tenth of the cost. Longer utterances are described in pieces of 30 s.

    Parameters
    ----------
    model : transformers.WhisperModel
        The network; its decoder is left out.
    """

    encoder: Any
    filters: Tensor
    window: Tensor

    def __init__(self, model: PreTrainedModel) -> None:
        from torchaudio.functional import melscale_fbanks  # noqa: PLC0415 — takes a while

        super().__init__()
        self.encoder = model.get_encoder()
        self.config = self.encoder.config
        self.piece = self.config.max_source_positions * 2 * HOP  # samples that the network has positions for: 30 s
        filters = melscale_fbanks(
            WINDOW // 2 + 1, 0.0, SAMPLE_RATE / 2, self.config.num_mel_bins, SAMPLE_RATE, "slaney", "slaney"
        )
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("window", torch.hann_window(WINDOW), persistent=False)

    @property
    def feature_extractor(self) -> nn.Module:
        """What is under the transformer, as the other networks call theirs: convolutions and fixed positions."""
        return nn.ModuleList([self.encoder.conv1, self.encoder.conv2, self.encoder.embed_positions])

    def forward(self, wavs: Tensor, last: int | None = None) -> list[Tensor]:
        """Compute the states of the layers, up to that of the layer ``last``.

        Parameters
        ----------
        wavs : torch.Tensor
            At 16 kHz, [B, T].
        last : int, optional
            Number of layers to compute; all of them if not given.

        Returns
        -------
        list of torch.Tensor
            [B, T'', D] each, 20 ms a frame: what the first layer is given, then the output of each layer.
        """
        pieces = [self._states(piece, last) for piece in torch.split(wavs, self.piece, dim=1)]
        return [torch.cat(states, dim=1) for states in zip(*pieces, strict=True)]

    def log_mel(self, wavs: Tensor) -> Tensor:
        """Compute Whisper's features [B, bins, T'] of ``wavs`` [B, T]: logarithmic, the loudest 80 dB of each."""
        with torch.autocast(wavs.device.type, enabled=False):
            spectrum = torch.stft(wavs.float(), WINDOW, HOP, window=self.window, return_complex=True)
            power = spectrum[..., :-1].abs().square().transpose(1, 2)
            mel = (power @ self.filters).clamp(min=1e-10).log10()
            return (torch.maximum(mel, mel.amax((1, 2), keepdim=True) - 8) / 4 + 1).transpose(1, 2)

    def _states(self, wavs: Tensor, last: int | None) -> list[Tensor]:
        encoder = self.encoder
        feats = self.log_mel(functional.pad(wavs, (0, max(0, WINDOW - wavs.shape[1]))))
        x = functional.gelu(encoder.conv2(functional.gelu(encoder.conv1(feats)))).transpose(1, 2)
        x = x + encoder.embed_positions.weight[: x.shape[1]]
        states = [functional.dropout(x, encoder.dropout, self.training)]
        for layer in encoder.layers[:last]:
            states.append(layer(states[-1], None))
        if len(states) > len(encoder.layers):
            states[-1] = encoder.layer_norm(states[-1])
        return states
