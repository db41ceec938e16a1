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
    # No kernel of 8 over 8 channels: of these, in bfloat16 on a processor with AMX, oneDNN (PyTorch 2.11) makes noise.
    stem = {"conv_dim": [8, 8, 8], "conv_kernel": [10, 9, 4], "conv_stride": [5, 8, 4], "num_feat_extract_layers": 3}
    position = {"num_conv_pos_embeddings": 6, "num_conv_pos_embedding_groups": 2}

    def write(folder: Path, kind: str = "wavlm", do_normalize: bool = True, **settings: Any) -> Path:
        torch.manual_seed(0)
        network = AutoModel.from_config(AutoConfig.for_model(kind, **{**layers, **stem, **position, **settings}))
        for weight in network.parameters():  # far from the identity that networks of small weights are
            torch.nn.init.normal_(weight, std=0.3)
        network.save_pretrained(folder)
        Wav2Vec2FeatureExtractor(do_normalize=do_normalize).save_pretrained(folder)
        return folder

    return write


LABELS = ["neutral", "happy", "sad"]


@pytest.fixture(scope="session")
def tiny_model() -> Callable[..., Any]:
    """Maker of tiny networks of any weights and statistics: strategy, seed, settings.

    It returns what the YAML builds, and the YAML of the model folder.
    """
    import torch

    from ser_plugins import configuration
    from ser_plugins.hub.folder import inference_yaml, self_contained
    from ser_plugins.models.batchnorm import MaskedBatchNorm

    hparams = Path(__file__).parents[1] / "hparams"

    def make(strategy: str = "s1", seed: int = 1, labels: list[str] = LABELS, **settings: Any) -> Any:
        polarity = {label: ("positive", "negative")[i % 2] for i, label in enumerate(labels[1:])}
        tiny = {"labels": labels, "polarity": polarity, "vad": "none", "embedding_size": 12}
        if strategy not in {"ssl", "s5_thin"}:  # which have networks of their own
            tiny |= {"channels": [4, 4, 8, 8], "descriptor_size": 8}
        tree = configuration.merge(configuration.read(hparams / f"{strategy}.yaml"), {**tiny, **settings}, "")
        torch.manual_seed(seed)
        built = configuration.build(tree)
        for module in built["embedding_model"].modules():
            if isinstance(module, MaskedBatchNorm):
                torch.nn.init.normal_(module.running_mean, std=0.2)
                torch.nn.init.uniform_(module.running_var, 0.5, 2)
        if hasattr(built["classifier"], "fit"):
            part = torch.randn(40, 1, 80 if strategy == "bhavan" else 12), torch.arange(40) % len(labels)
            built["classifier"].fit(*part, *part)
        elif hasattr(built["classifier"], "linear"):
            torch.nn.init.normal_(built["classifier"].linear.weight)
        resolved = self_contained(configuration.resolve(tree), built["embedding_model"])
        return built, inference_yaml(resolved, hparams / "inference.yaml")

    return make


@pytest.fixture(scope="session")
def write_model(tiny_model: Callable[..., Any]) -> Callable[..., Path]:
    """Writer of model folders: folder, and what `tiny_model` takes."""
    from ser_plugins.hub.folder import save_model_folder

    def write(folder: Path, *kind: Any, labels: list[str] = LABELS, **settings: Any) -> Path:
        built, yaml = tiny_model(*kind, labels=labels, **settings)
        save_model_folder(folder, yaml, built["embedding_model"], built["classifier"], labels)
        return folder

    return write
