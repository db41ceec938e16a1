"""The choice of the precision."""

import pytest
import torch

from ser_plugins.errors import InputError
from ser_plugins.training.precision import choose_precision
from ser_plugins.training.recipe import Recipe


@pytest.mark.parametrize(("flag", "chosen"), [(True, "bf16"), (False, "fp32")])
def test_bf16_is_chosen_where_the_processor_has_it(monkeypatch, flag, chosen):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: flag)
    assert choose_precision("auto", "cpu") == chosen
    assert Recipe.from_arguments(["hparams/s1.yaml", "--corpus", "ravdess"])["precision"] == chosen
    assert (
        Recipe.from_arguments(["hparams/s1.yaml", "--corpus", "ravdess", "--precision", "fp16"])["precision"] == "fp16"
    )


def test_a_processor_says_so_itself():
    with open("/proc/cpuinfo") as file:
        flags = file.read().split()
    assert choose_precision("auto", "cpu") == ("bf16" if "avx512_bf16" in flags else "fp32")


def test_an_unknown_precision_is_refused():
    with pytest.raises(InputError, match=r"--precision half: choose one of auto, fp32, fp16, bf16"):
        choose_precision("half", "cpu")
