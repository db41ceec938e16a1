import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.hookimpl(tryfirst=True, wrapper=True)
def pytest_collection_modifyitems() -> Generator[None, Any, Any]:
    # hypothesis looks for the file of every module, and SpeechBrain's lazy ones answer that by importing what they
    # stand for, optional dependencies such as k2 included.
    from speechbrain.utils.importutils import LazyModule

    for module in list(sys.modules.values()):
        if isinstance(module, LazyModule):
            module.__dict__.setdefault("__file__", None)
    return (yield)


@pytest.fixture(scope="session")
def write_aac() -> Callable[..., None]:
    """Writer of real AAC files, as VoxCeleb2's: path, samples, rate."""
    import av

    def write(path: Path, samples: np.ndarray, rate: int = 16000) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), "w") as container:
            stream = container.add_stream("aac", rate=rate, layout="mono")
            frame = av.AudioFrame.from_ndarray(samples[None].astype(np.float32), format="fltp", layout="mono")
            frame.rate = rate
            for packet in [*stream.encode(frame), *stream.encode(None)]:
                container.mux(packet)

    return write
