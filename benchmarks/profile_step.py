"""Profile a training step: python benchmarks/profile_step.py writes benchmarks/results/profile.md.

One thread, batch 32 of 2 s, the fastest of several steps. Times are those of the operators themselves, by name.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from speed.harness import ceiling, machine
from speed.step import BATCH, CLASSES, SAMPLES, Ours, stepper
from torch.profiler import ProfilerActivity, profile

from ser_plugins.files import atomic_write
from ser_plugins.memory import keep_memory

STEPS = 12
FORWARD, BACKWARD = "aten::mkldnn_convolution", "aten::convolution_backward"
PARTS = {
    FORWARD: "convolutions, forward",
    BACKWARD: "convolutions, backward",
    "aten::native_batch_norm": "batch normalisations, forward",
    "aten::native_batch_norm_backward": "batch normalisations, backward",
    "aten::clamp_min_": "activations",
    "aten::threshold_backward": "activations",
    "aten::mul": "gates, residual sums and their gradients",
    "aten::sum": "gates, residual sums and their gradients",
    "aten::add": "gates, residual sums and their gradients",
    "aten::add_": "gates, residual sums and their gradients",
}
REST = "all else: spectrogram, pooling, loss, Adam, conversions, Python"


def fastest(bfloat16: bool) -> list[Any]:
    """Return the events of the fastest training step, by operator and shapes."""
    torch.manual_seed(0)
    step = stepper(Ours(), torch.randn(BATCH, SAMPLES), torch.arange(BATCH) % CLASSES, bfloat16)
    found = []
    for _ in range(STEPS):
        with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
            step()
        found.append(list(profiler.key_averages(group_by_input_shape=True)))
    return min(found, key=milliseconds)


def milliseconds(events: list[Any]) -> float:
    """Sum the time of all events."""
    return float(sum(event.self_cpu_time_total for event in events)) / 1000


def parts(events: list[Any]) -> Counter[str]:
    """Sum the milliseconds of each part of the step."""
    found: Counter[str] = Counter()
    for event in events:
        found[PARTS.get(event.key, REST)] += event.self_cpu_time_total / 1000
    return found


def convolutions(events: list[Any]) -> Iterator[tuple[str, float, float]]:
    """Compute the GFLOP/s, forward and backward, of the four most costly shapes of convolutions."""
    times: dict[tuple[int, ...], dict[str, float]] = defaultdict(dict)
    operations: Counter[tuple[int, ...]] = Counter()
    for event in events:
        if event.key == FORWARD:
            weight = tuple(event.input_shapes[1])
            times[weight][FORWARD] = event.self_cpu_time_total / 1e6
        if event.key == BACKWARD:
            (batch, _, frames, bins), _, weight = map(tuple, event.input_shapes[:3])
            times[weight][BACKWARD] = event.self_cpu_time_total / 1e6
            operations[weight] = 2 * event.count * batch * frames * bins * torch.Size(weight).numel()
    for weight, count in sorted(operations.items(), key=lambda item: -item[1])[:4]:
        outputs, inputs, height, width = weight
        name = f"{inputs} to {outputs} channels, {height} × {width}: {count / 1e9:.0f} GFLOP forward"
        yield name, count / times[weight][FORWARD] / 1e9, 2 * count / times[weight][BACKWARD] / 1e9


def main() -> None:
    torch.set_num_threads(1)
    keep_memory()  # as the recipes do
    single, half = fastest(bfloat16=False), fastest(bfloat16=True)
    lines = [
        "# Profile of a training step",
        f"\nBatch {BATCH} of 2 s, the fastest of {STEPS}; one thread, {machine()['processor']}.",
        "`python benchmarks/profile_step.py`",
        "\n| | float32 | | bfloat16 | |\n|---|---|---|---|---|",
    ]
    totals = [milliseconds(single), milliseconds(half)]
    found = [parts(single), parts(half)]
    for part in dict.fromkeys([*PARTS.values(), REST]):
        pairs = [(own[part], 100 * own[part] / total) for own, total in zip(found, totals, strict=True)]
        lines.append(f"| {part} | {' | '.join(f'{time:.0f} ms | {share:.0f} %' for time, share in pairs)} |")
    lines.append(f"| all | {totals[0]:.0f} ms | | {totals[1]:.0f} ms | |")
    lines.append(f"\nConvolutions, float32; the fastest dense product reaches {ceiling(torch.float32):.0f} GFLOP/s.")
    lines.append("\n| | forward | backward |\n|---|---|---|")
    lines += [f"| {name} | {there:.0f} GFLOP/s | {back:.0f} GFLOP/s |" for name, there, back in convolutions(single)]
    atomic_write(Path("benchmarks/results/profile.md"), "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
