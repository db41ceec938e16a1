"""Exponential moving average of the weights, for validation and for the model that is kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class WeightAverage:
    """Average the weights of modules over the steps of a training.

    The decay of step n is ``min(decay, (1 + n) / (10 + n))``, so that the random weights of the first steps fade soon.

    Parameters
    ----------
    decay : float, optional
        Share of the average that stays at each step, in [0, 1); 0.99 averages about 100 steps. None turns it off.
    batches : int
        Batches that `update_statistics` computes the statistics of batch normalisation from.

    Raises
    ------
    ValueError
        If ``decay`` is not in [0, 1).

    Example
    -------
    >>> average, layer = WeightAverage(0.5), nn.Linear(1, 1, bias=False)
    >>> average.start({"layer": layer})
    >>> for value in (1.0, 2.0):
    ...     _ = nn.init.constant_(layer.weight, value)
    ...     average.update()
    >>> round(float(average.networks["layer"].module.weight), 4)  # 2/11 of 1 and 9/11 of 2
    1.8182
    """

    def __init__(self, decay: float | None = 0.99, batches: int = 8) -> None:
        if decay is not None and not (isinstance(decay, int | float) and 0 <= decay < 1):
            raise ValueError(f"decay of the weights' average must be in [0, 1), got {decay!r}")
        self.decay = decay
        self.batches = batches
        self.networks: dict[str, AveragedModel] = {}
        self._weights: dict[str, tuple[list[Tensor], list[Tensor]]] = {}

    def start(self, modules: Mapping[str, nn.Module]) -> None:
        """Begin an average of each module that has weights."""
        for name, module in modules.items() if self.decay is not None else ():
            if any(weight.requires_grad for weight in module.parameters()):
                network = AveragedModel(module).eval()
                self.networks[name] = network
                self._weights[name] = list(network.module.parameters()), list(module.parameters())

    @torch.no_grad()
    def update(self) -> None:
        """Move the averages towards the weights after a step.

        All weights of a module move at once. ``AveragedModel.update_parameters`` would also copy each buffer.
        """
        for name, (averaged, weights) in self._weights.items():
            steps = int(self.networks[name].n_averaged)
            decay = min(float(self.decay or 0.0), (1 + steps) / (10 + steps)) if steps else 0.0
            get_ema_multi_avg_fn(decay)(averaged, weights, steps)  # type: ignore[no-untyped-call]
            self.networks[name].n_averaged += 1

    @torch.no_grad()
    def update_statistics(self, name: str, module: nn.Module, inputs: Iterable[Tensor]) -> None:
        """Compute the statistics of batch normalisation for the averaged weights of a module.

        Parameters
        ----------
        name : str
            Name of the module.
        module : torch.nn.Module
            The module itself, for its other buffers.
        inputs : iterable of torch.Tensor
            Batches of its input; the first ``batches`` are taken.
        """
        if name not in self.networks:
            return
        network = self.networks[name].module
        for averaged, buffer in zip(network.buffers(), module.buffers(), strict=True):
            averaged.copy_(buffer)
        _update_batchnorm(network.train(), islice(inputs, self.batches))
        network.eval()

    def clear(self) -> None:
        """Let go of the averages."""
        self.networks.clear()
        self._weights.clear()


def _update_batchnorm(network: nn.Module, inputs: Iterable[Tensor]) -> None:
    """Compute the statistics of batch normalisation over ``inputs``.

    ``torch.optim.swa_utils.update_bn`` also resets layers that a frozen part of the network keeps in evaluation mode.
    """
    layers = [layer for layer in network.modules() if isinstance(layer, _BatchNorm) and layer.training]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the mean of all batches
    for batch in inputs if layers else ():
        network(batch)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
