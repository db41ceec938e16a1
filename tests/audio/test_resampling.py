"""Resampling against torchaudio and against signals that are known, at usual and unusual rates."""

import subprocess
import sys
from math import gcd

import numpy as np
import pytest
import torch
import torchaudio
from scipy.signal import resample_poly

from ser_plugins.audio import resampling
from ser_plugins.audio.resampling import resample
from ser_plugins.errors import InputError

ODD = [1000, 8013, 11127, 22254, 44101, 47999, 767999]


@pytest.mark.parametrize("rate", [8000, 11025, 12000, 22050, 32000, 44056, 44100, 48000, 88200, 96000, 192000, 768000])
@pytest.mark.parametrize("samples", [1, 77, 20001])
def test_both_ways_are_one_filter(monkeypatch, rate, samples):
    signal = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, samples).astype(np.float32))
    expected = torchaudio.functional.resample(signal, rate, 16000)
    # torchaudio computes its kernel in single precision, which is less exact the larger it is.
    torch.testing.assert_close(resample(signal, rate), expected, atol=2e-4, rtol=0)
    monkeypatch.setattr(resampling, "LARGEST_KERNEL", 0)
    torch.testing.assert_close(resample(signal, rate), expected, atol=2e-4, rtol=0)


@pytest.mark.parametrize("rate", [8000, 8013, 11025, 44100, 48000, 96000])
@pytest.mark.parametrize("samples", [1, 77, 20001])
def test_arrays_pass_the_filter_of_scipy(rate, samples):
    signal = np.random.default_rng(0).uniform(-1, 1, samples).astype(np.float32)
    up, down = 16000 // gcd(rate, 16000), rate // gcd(rate, 16000)
    expected = resample_poly(signal, up, down, window=resampling.sinc_filter(up, down))
    found = resampling.resample_array(signal, rate)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize("rate", [44100, 48000])
def test_usual_rates_are_to_the_bit_what_they_were(rate):
    """Prepared audio is kept under the settings and the bytes of a file."""
    signal = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, 20001).astype(np.float32))
    assert torch.equal(resample(signal, rate), torchaudio.functional.resample(signal, rate, 16000))


@pytest.mark.parametrize("rate", ODD)
def test_odd_rates_keep_pitch_level_and_place(rate):
    hertz = min(1000, rate // 4)
    result = resample(torch.sin(2 * torch.pi * hertz * torch.arange(rate).double() / rate).float(), rate)
    assert len(result) == 16000
    expected = torch.sin(2 * torch.pi * hertz * torch.arange(16000).double() / 16000).float()
    torch.testing.assert_close(result[500:-500], expected[500:-500], atol=0.005, rtol=0)


def test_odd_rates_fold_nothing_into_the_band():
    result = resample(torch.sin(2 * torch.pi * 11000 * torch.arange(47999).double() / 47999).float(), 47999)
    assert result[500:-500].abs().max() < 0.005


@pytest.mark.parametrize("rate", [8013, 44101])
def test_windows_resampled_alone_are_those_of_the_whole_but_for_their_edges(rate):
    signal = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, 5 * rate).astype(np.float32))
    whole, window = resample(signal, rate), resample(signal[rate : 3 * rate], rate)
    edge = int(np.ceil(7 * 16000 / min(rate, 16000)))
    torch.testing.assert_close(window[edge:-edge], whole[16000 : 3 * 16000][edge:-edge], atol=1e-6, rtol=0)


@pytest.mark.parametrize("rate", [0, -8000, 768001, 2**31])
def test_a_rate_of_no_recording_is_refused(rate):
    with pytest.raises(InputError, match=f"a rate of {rate} Hz is no recording's; give 1 to 768000 Hz"):
        resample(torch.zeros(20), rate)


@pytest.mark.parametrize("rates", [[1, 8013, 22254, 44101, 47999], [767999]])
def test_memory_is_bounded(rates):
    """Three seconds at each rate, in a process that has some 400 MB for them."""
    script = """
import resource, sys, torch
from ser_plugins.audio.resampling import resample
resample(torch.zeros(3 * 44100), 44100)
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 400_000_000,) * 2)
for rate in map(int, sys.argv[1:]):
    assert len(resample(torch.rand(3 * rate), rate)) == 48000
"""
    command = [sys.executable, "-c", script, *map(str, rates)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
