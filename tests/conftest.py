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


@pytest.fixture(scope="session")
def write_ssl() -> Callable[..., Path]:
    """Writer of tiny self-supervised networks of random weights, as transformers saves them: folder, kind, settings."""
    import torch
    from transformers import AutoConfig, AutoModel, Wav2Vec2FeatureExtractor

    layers = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    stem = {"conv_dim": [8, 8, 8], "conv_kernel": [10, 8, 4], "conv_stride": [5, 8, 4], "num_feat_extract_layers": 3}
    position = {"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}

    def write(folder: Path, kind: str = "wavlm", do_normalize: bool = True, **settings: Any) -> Path:
        torch.manual_seed(0)
        network = AutoModel.from_config(AutoConfig.for_model(kind, **{**layers, **stem, **position, **settings}))
        for weight in network.parameters():  # far from the identity that networks of small weights are
            torch.nn.init.normal_(weight, std=0.3)
        network.save_pretrained(folder)
        Wav2Vec2FeatureExtractor(do_normalize=do_normalize).save_pretrained(folder)
        return folder

    return write
