"""GhostVLAD pooling: frame descriptors to one vector an utterance."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ser_plugins.lengths import length_mask


class GhostVLAD(nn.Module):
    """Vector of locally aggregated descriptors with ghost clusters; without ghosts, NetVLAD.

    ``V(k) = sum_i a_ik (p_i - c_k)`` with the soft assignment ``a_ik = softmax_k(w_k . p_i + b_k)`` over K clusters and
    G ghosts. The sums of the ghosts are dropped, and with them the frames that they attract (noise, breath, music).
    Each V(k) is L2-normalised, then the whole vector. Zhong et al., ACCV 2018 (ghosts); Arandjelovic et al., CVPR 2016
    (NetVLAD); equation (1) of Mocanu, Tapu and Zaharia, Sensors 2021.

    Parameters
    ----------
    input_size : int, optional
        Size D of a descriptor; `UtteranceEncoder` fills it in from its backbone.
    clusters : int
        K, clusters that are kept.
    ghost_clusters : int
        G, clusters that are dropped; 0 is NetVLAD.

    Attributes
    ----------
    input_size, output_size : int or None
        D and K · D; None until the size of a descriptor is known.

    Example
    -------
    >>> GhostVLAD(input_size=128)(torch.randn(2, 13, 128), torch.tensor([1.0, 0.5])).shape
    torch.Size([2, 1024])
    """

    capturable = True  # looks at no values of a batch without padding

    def __init__(self, input_size: int | None = None, clusters: int = 8, ghost_clusters: int = 2) -> None:
        super().__init__()
        if clusters < 1 or ghost_clusters < 0:
            raise ValueError(f"need clusters >= 1 and ghost_clusters >= 0, got {clusters} and {ghost_clusters}")
        self.clusters = clusters
        self.ghost_clusters = ghost_clusters
        self.input_size: int | None = None
        self.output_size: int | None = None
        if input_size is not None:
            self.set_input_size(input_size)

    def set_input_size(self, input_size: int) -> None:
        """Make the weights for descriptors of ``input_size`` values."""
        self._make_weights(input_size, input_size)

    def _make_weights(self, input_size: int, size: int) -> None:
        """Make the assignment of descriptors of ``input_size`` values, and the centres of what is aggregated."""
        self.input_size = input_size
        self.output_size = self.clusters * size
        self.assignment = nn.Linear(input_size, self.clusters + self.ghost_clusters)
        self.centres = nn.Parameter(torch.empty(self.clusters, size))
        nn.init.orthogonal_(self.assignment.weight)
        nn.init.zeros_(self.assignment.bias)
        nn.init.orthogonal_(self.centres)

    def forward(self, descriptors: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Pool ``descriptors`` [B, T'', D] with relative ``lengths`` [B] to [B, K * D]."""
        with torch.autocast(descriptors.device.type, enabled=False):
            descriptors = self._cast(descriptors)
            vlad = self._aggregate(descriptors, self.assignment(descriptors), lengths)
            return functional.normalize(functional.normalize(vlad, dim=-1).flatten(1), dim=-1)

    def _cast(self, descriptors: Tensor) -> Tensor:
        """Bring ``descriptors`` to the type of the weights; ValueError where there are none yet."""
        if self.input_size is None:
            raise ValueError(f"{type(self).__name__} has no input_size; give it, or build UtteranceEncoder with it")
        return descriptors.to(self.centres.dtype)  # a quantised assignment has no weight of a type

    def _aggregate(self, descriptors: Tensor, scores: Tensor, lengths: Tensor | None) -> Tensor:
        """Sum the residuals of ``descriptors`` [B, T'', D], shared out by ``scores`` [B, T'', K + G], to [B, K, D]."""
        # [B, K + G, T'']: a softmax along contiguous memory, of ten values at a time, takes ten times as long.
        assignment = scores.transpose(1, 2).softmax(1)[:, : self.clusters]
        if lengths is not None:
            assignment = assignment * length_mask(lengths, descriptors.shape[1]).unsqueeze(1)
        # sum_i a_ik p_i - (sum_i a_ik) c_k: no [B, T, K, D] tensor of residuals.
        return torch.baddbmm(assignment.sum(2, keepdim=True) * self.centres, assignment, descriptors, beta=-1)


class ProjectedGhostVLAD(GhostVLAD):
    """GhostVLAD of projected descriptors, as Xie et al., ICASSP 2019.

    A layer with ReLU projects each descriptor before it is aggregated; the soft assignment reads the descriptor as it
    was before. Each V(k) is L2-normalised, the whole vector is not.

    Parameters
    ----------
    input_size : int, optional
        Size of a descriptor of the backbone; `UtteranceEncoder` fills it in.
    projected_size : int
        Size D of a projected descriptor.
    clusters : int
        K, clusters that are kept.
    ghost_clusters : int
        G, clusters that are dropped.

    Example
    -------
    >>> ProjectedGhostVLAD(3584)(torch.randn(2, 13, 3584), torch.tensor([1.0, 0.5])).shape
    torch.Size([2, 4096])
    """

    def __init__(
        self, input_size: int | None = None, projected_size: int = 512, clusters: int = 8, ghost_clusters: int = 2
    ) -> None:
        super().__init__(None, clusters, ghost_clusters)
        self.projected_size = projected_size
        if input_size is not None:
            self.set_input_size(input_size)

    def set_input_size(self, input_size: int) -> None:
        """Make the weights for descriptors of ``input_size`` values."""
        self._make_weights(input_size, self.projected_size)
        self.projection = nn.Linear(input_size, self.projected_size)
        nn.init.orthogonal_(self.projection.weight)
        nn.init.zeros_(self.projection.bias)

    def forward(self, descriptors: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Pool ``descriptors`` [B, T'', input_size] with relative ``lengths`` [B] to [B, K * D]."""
        with torch.autocast(descriptors.device.type, enabled=False):
            descriptors = self._cast(descriptors)
            projected = functional.relu(self.projection(descriptors))
            vlad = self._aggregate(projected, self.assignment(descriptors), lengths)
            # The least norm is that of the original: a cluster that attracts next to nothing must stay next to nothing.
            return functional.normalize(vlad, dim=-1, eps=1e-6).flatten(1)
