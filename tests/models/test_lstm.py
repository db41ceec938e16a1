"""The LSTM over padded frames against PyTorch's own on each utterance alone."""

import pytest
import torch

from ser_plugins import AttentivePooling, LSTMBackbone, UtteranceEncoder
from ser_plugins.lengths import relative_lengths

FRAMES = [30, 7, 1, 18]


def padded(size=5):
    torch.manual_seed(0)
    alone = [torch.randn(count, size) for count in FRAMES]
    return torch.nn.utils.rnn.pad_sequence(alone, batch_first=True), alone


@pytest.mark.parametrize("with_input", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
@torch.no_grad()
def test_each_utterance_has_the_states_of_an_lstm_without_padding(layers, with_input):
    feats, alone = padded()
    network = LSTMBackbone(5, 6, layers, with_input)
    plain = torch.nn.LSTM(5, 6, layers, bidirectional=True)
    plain.load_state_dict(network.lstm.state_dict())
    noisy = feats + 7.0 * (feats == 0)  # what the lengths exclude may have any value
    descriptors, lengths = network(noisy, relative_lengths(torch.tensor(FRAMES), 30))
    assert descriptors.shape == (4, 30, network.output_size)
    torch.testing.assert_close(lengths, torch.tensor(FRAMES) / 30)
    for own, found, count in zip(alone, descriptors, FRAMES, strict=True):
        expected = plain(own.unsqueeze(1))[0].squeeze(1)
        expected = torch.cat([expected, own], 1) if with_input else expected
        torch.testing.assert_close(found[:count], expected, atol=1e-6, rtol=0)
        assert not found[count:].any()
        torch.testing.assert_close(network(own[None])[0][0], expected, atol=1e-6, rtol=0)


def test_frames_that_are_padding_everywhere_are_left_out():
    feats, _ = padded()
    longer = torch.nn.functional.pad(feats, (0, 0, 0, 12))
    network = LSTMBackbone(5, 6)
    found, lengths = network(longer)
    expected, own_lengths = network(feats)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(lengths, own_lengths)


def test_it_learns_what_the_order_of_the_frames_tells():
    """Two classes with the same frames in opposite orders: no pooling of the frames alone tells them apart."""
    torch.manual_seed(0)
    ramps = torch.linspace(-1, 1, 12).expand(32, 12) + 0.1 * torch.randn(32, 12)
    labels = torch.arange(32) % 2
    feats = torch.where(labels[:, None].bool(), ramps, ramps.flip(1)).unsqueeze(-1)
    encoder = UtteranceEncoder(LSTMBackbone(1, 8, 1), AttentivePooling(), 2)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=0.05)
    for _ in range(40):
        loss = torch.nn.functional.cross_entropy(encoder(feats).squeeze(1), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1
