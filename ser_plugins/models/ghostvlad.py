"""GhostVLAD pooling: frame descriptors to one vector an utterance."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ser_plugins.lengths import frame_mask


class GhostVLAD(nn.Module):
    """Vector of locally aggregated descriptors with ghost clusters; without ghosts, NetVLAD.

    ``V(k) = sum_i a_ik (p_i - c_k)`` with the soft assignment ``a_ik = softmax_k(w_k . p_i + b_k)`` over K clusters and
    G ghosts; the ghosts' sums are dropped, so what they attract (noise, breath, music) leaves the embedding. Each V(k)
    is L2-normalised, then the whole vector. Zhong et al., ACCV 2018 (ghosts); Arandjelovic et al., CVPR 2016 (NetVLAD);
    equation (1) of Mocanu, Tapu and Zaharia, Sensors 2021.

    Parameters
    ----------
    input_size : int
        Size D of a descriptor.
    clusters : int
        K, clusters that are kept.
    ghost_clusters : int
        G, clusters that are dropped; 0 is NetVLAD.

    Example
    -------
    >>> GhostVLAD(input_size=128)(torch.randn(2, 13, 128), torch.tensor([1.0, 0.5])).shape
    torch.Size([2, 1024])
    """

    def __init__(self, input_size: int, clusters: int = 8, ghost_clusters: int = 2) -> None:
        super().__init__()
        if clusters < 1 or ghost_clusters < 0:
            raise ValueError(f"need clusters >= 1 and ghost_clusters >= 0, got {clusters} and {ghost_clusters}")
        self.clusters = clusters
        self.ghost_clusters = ghost_clusters
        self.output_size = clusters * input_size
        self.assignment = nn.Linear(input_size, clusters + ghost_clusters)
        self.centres = nn.Parameter(torch.empty(clusters, input_size))
        nn.init.orthogonal_(self.assignment.weight)
        nn.init.zeros_(self.assignment.bias)
        nn.init.orthogonal_(self.centres)

    def forward(self, descriptors: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Pool ``descriptors`` [B, T'', D] with relative ``lengths`` [B] to [B, K * D]."""
        with torch.autocast(descriptors.device.type, enabled=False):
            weight = self.assignment.weight
            descriptors = descriptors.to(weight.dtype)
            assignment = self.assignment(descriptors).softmax(-1)[..., : self.clusters]
            if lengths is not None:
                # Descriptors may be zero inside an utterance: only the lengths say where it ends.
                total = descriptors.shape[1]
                frames = torch.round(lengths.double() * total).long().clamp(1, total)
                assignment = assignment * frame_mask(frames, total).unsqueeze(-1)
            # sum_i a_ik p_i - (sum_i a_ik) c_k: no [B, T, K, D] tensor of residuals.
            vlad = assignment.transpose(1, 2) @ descriptors - assignment.sum(1).unsqueeze(-1) * self.centres
            return functional.normalize(functional.normalize(vlad, dim=-1).flatten(1), dim=-1)
