"""Tools of the cases: alternating timings, memory of a fresh process, FLOP, and the machine with its ceiling."""

import multiprocessing
import os
import platform
import resource
import shlex
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

LIBRARIES = ("torch", "torchaudio", "speechbrain", "scikit-learn", "numpy")
BUDGET = 0.3  # seconds for each product of `ceiling`


@dataclass(frozen=True)
class Cost:
    """Cost of a call in a fresh process: seconds, MiB that it added to the peak memory, and that peak."""

    seconds: float
    added: float
    peak: float


@dataclass(frozen=True)
class Row:
    """One comparison: a ratio, and the target that it should reach."""

    case: str
    ours: str
    other: str
    ratio: float | None = None
    least: float | None = None
    most: float | None = None

    @property
    def met(self) -> bool | None:
        """True where the target is reached; None without one."""
        if self.ratio is None or (self.least is None and self.most is None):
            return None
        return (self.least is None or self.ratio >= self.least) and (self.most is None or self.ratio <= self.most)

    @property
    def target(self) -> str:
        """The target as text."""
        if self.least is not None:
            return f"≥ {self.least:g}"
        return "" if self.most is None else f"≤ {self.most:g}"


def timings(*functions: Callable[[], Any], repeats: int = 5) -> list[list[float]]:
    """Time functions in turn, after one call of each that does not count; return the seconds of each call."""
    seconds: list[list[float]] = [[] for _ in functions]
    for repeat in range(1 + repeats):
        for function, found in zip(functions, seconds, strict=True):
            start = time.perf_counter()
            function()
            if repeat:
                found.append(time.perf_counter() - start)
    return seconds


def alternate(*functions: Callable[[], Any], repeats: int = 5) -> list[float]:
    """Return the median seconds of each function, called in turn as by `timings`."""
    return [statistics.median(found) for found in timings(*functions, repeats=repeats)]


def peak_memory() -> float:
    """Return the peak resident memory of this process in MiB; getrusage would include its parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def _measure(function: Callable[..., Any], arguments: Sequence[Any], threads: int, limit: int) -> Cost:
    torch.set_num_threads(threads)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    before = peak_memory()
    start = time.perf_counter()
    function(*arguments)
    seconds = time.perf_counter() - start
    peak = peak_memory()
    return Cost(seconds, peak - before, peak)


def fresh(function: Callable[..., Any], *arguments: Any, gigabytes: float = 12) -> Cost | None:
    """Measure a call in a fresh process; None where ``gigabytes`` of memory do not suffice."""
    limit = int(gigabytes * 2**30) + 12 * 2**30  # address space of the libraries themselves
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(_measure, function, arguments, torch.get_num_threads(), limit).result()
        except (MemoryError, BrokenProcessPool):  # the allocator of a library may end the process itself
            return None
        except RuntimeError as error:
            if "memory" not in str(error):
                raise
            return None


def now(device: torch.device | str = "cpu") -> float:
    """Wait for the device, and return the time in seconds."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def operations(call: Callable[[], Any]) -> float:
    """Count the GFLOP of the convolutions and matrix products of a call."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() / 1e9


def ceiling(dtype: torch.dtype, device: torch.device | str = "cpu") -> float:
    """Return the GFLOP/s of the fastest dense product: square matrices, and a convolution that fits in the cache.

    A processor is fastest where operands are small, and in convolutions; a GPU is fastest where they are large.
    """
    sizes = (256, 512, 2048) if torch.device(device).type == "cpu" else (2048, 8192)
    products: list[tuple[float, Callable[[], Tensor]]] = []
    for size in sizes:
        left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        products.append((2 * size**3, partial(torch.matmul, left, right)))
    channels, side = 128, 16
    image, weight = torch.randn(4, channels, side, side), torch.randn(channels, channels, 3, 3)
    operands = (tensor.to(device, dtype, memory_format=torch.channels_last) for tensor in (image, weight))
    products.append((2 * image.numel() * channels * 9, partial(functional.conv2d, *operands, padding=1)))
    return max(_rate(count, product, device) for count, product in products) / 1e9


def _rate(count: float, product: Callable[[], Tensor], device: torch.device | str) -> float:
    seconds: list[float] = []
    while len(seconds) < 3 or sum(seconds) < BUDGET:
        start = now(device)
        product()
        seconds.append(now(device) - start)
    return count / min(seconds)


def memory_rate(megabytes: int = 512) -> float:
    """Return the GB/s that the fastest of several copies reads and writes."""
    source = torch.ones(megabytes * 2**18)
    target = torch.empty_like(source)
    best = min(alternate(lambda: target.copy_(source), repeats=1)[0] for _ in range(5))
    return 2 * megabytes * 2**20 / best / 1e9


def machine() -> dict[str, Any]:
    """Describe the machine, with its ceiling at this moment."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "versions": {name: version(name) for name in LIBRARIES},
        "float32 ceiling, GFLOP/s": round(ceiling(torch.float32), 1),
        "bfloat16 ceiling, GFLOP/s": round(ceiling(torch.bfloat16), 1),
        "memory, GB/s": round(memory_rate(), 1),
    }


def command(words: list[str]) -> str:
    """Write the command line with its folders left out."""
    folders = [before.endswith("_folder") for before in ["", *words]]
    named = ["FOLDER" if folder else word for word, folder in zip(words, folders, strict=False)]
    return shlex.join(["python", *named])


def milliseconds(seconds: float) -> str:
    """Write a time to three digits."""
    return f"{1000 * seconds:.3g} ms"
