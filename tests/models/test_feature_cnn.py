"""The network along hand-made features."""

import torch

from ser_plugins import FeatureCNN


def test_features_of_any_scale_are_standardised_by_what_was_trained_on():
    torch.manual_seed(0)
    one, other = FeatureCNN(40, dropout=0.0), FeatureCNN(40, dropout=0.0)
    other.load_state_dict(one.state_dict())
    feats, scale, shift = torch.randn(64, 1, 40), 10 ** torch.linspace(-2, 3, 40), torch.randn(40)
    for network, x in ((one, feats), (other, scale * (feats + shift))):
        for _ in range(100):
            network(x)
        network.eval()
    torch.testing.assert_close(other(scale * (feats + shift)), one(feats), atol=1e-2, rtol=0)
