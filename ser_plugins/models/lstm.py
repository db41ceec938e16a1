"""A bidirectional LSTM over the frames of an utterance, blind to padding."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ser_plugins.lengths import count_frames, frame_mask, relative_lengths


class LSTMBackbone(nn.Module):
    """Bidirectional LSTM: features of each frame in, one descriptor a frame out.

    The recurrent part of Mirsamadi, Barsoum and Zhang, "Automatic speech emotion recognition using recurrent neural
    networks with local attention", ICASSP 2017. Each direction starts at the first or last frame of an utterance, not
    at its padding.

    Parameters
    ----------
    n_bins : int
        Values of a frame, F.
    hidden_size : int
        Cells of each direction in each layer.
    layers : int
        Number of layers.
    with_input : bool
        Append the features of the frame to each descriptor. A pooling of statistics then describes the features and
        the states of the network together (Tzinis and Potamianos, ACII 2017, use both).

    Attributes
    ----------
    output_size : int
        Size of a descriptor D: ``2 * hidden_size``, and F more with the input.

    Example
    -------
    >>> descriptors, lengths = LSTMBackbone(80)(torch.randn(2, 200, 80), torch.tensor([1.0, 0.5]))
    >>> descriptors.shape, lengths
    (torch.Size([2, 200, 256]), tensor([1.0000, 0.5000]))
    """

    def __init__(self, n_bins: int, hidden_size: int = 128, layers: int = 1, with_input: bool = False) -> None:
        super().__init__()
        self.lstm = nn.LSTM(n_bins, hidden_size, layers, batch_first=True, bidirectional=True)
        self.with_input = with_input
        self.output_size = 2 * hidden_size + n_bins * with_input

    def forward(self, feats: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Compute frame descriptors.

        Parameters
        ----------
        feats : torch.Tensor
            Features, [B, T', F].
        lengths : torch.Tensor, optional
            Relative lengths, [B].

        Returns
        -------
        descriptors : torch.Tensor
            [B, T', D], without frames that are padding in all utterances. Padded descriptors are zero.
        lengths : torch.Tensor
            Relative lengths of the descriptors, [B].
        """
        frames = count_frames(feats, lengths)
        if torch.onnx.is_in_onnx_export():
            descriptors = self._as_onnx(feats, frames)
        elif int(frames.min()) == feats.shape[1]:  # PyTorch is ten times as fast on a CPU without packing
            descriptors = self.lstm(feats)[0]
        else:
            packed = pack_padded_sequence(feats, frames.cpu(), batch_first=True, enforce_sorted=False)
            descriptors, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        total = descriptors.shape[1]
        if self.with_input:
            own = feats[:, :total] * frame_mask(frames, total).unsqueeze(-1)
            descriptors = torch.cat([descriptors, own.to(descriptors.dtype)], dim=-1)
        return descriptors, relative_lengths(frames, total)

    def _as_onnx(self, feats: Tensor, frames: Tensor) -> Tensor:
        """Compute the descriptors [B, T', 2 H] by ONNX's LSTM; PyTorch's exporter takes no packed sequences."""
        size, x = self.lstm.hidden_size, feats.transpose(0, 1)
        for layer in range(self.lstm.num_layers):
            directions = [f"l{layer}", f"l{layer}_reverse"]
            inner, outer = (self._gates(kind, directions) for kind in ("weight_ih", "weight_hh"))
            bias = torch.cat([self._gates(kind, directions) for kind in ("bias_ih", "bias_hh")], dim=1)
            shape = (x.shape[0], 2, x.shape[1], size)
            y = torch.onnx.ops.symbolic(
                "LSTM",
                (x, inner, outer, bias, frames.int()),
                {"direction": "bidirectional", "hidden_size": size},
                dtype=x.dtype,
                shape=shape,
                version=14,
            )
            x = y.transpose(1, 2).flatten(2)
        return x.transpose(0, 1)

    def _gates(self, kind: str, directions: list[str]) -> Tensor:
        """Stack the weights of both directions in ONNX's order of the gates: input, output, forget, cell."""
        weights = [getattr(self.lstm, f"{kind}_{name}").chunk(4) for name in directions]
        return torch.stack([torch.cat([i, o, f, g]) for i, f, g, o in weights])
