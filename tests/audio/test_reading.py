"""Sound files of many formats against the samples that were written, whole, streamed, cut off and damaged."""

import os
import socket
import time
import tracemalloc
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile as sf

from ser_plugins.audio import reading
from ser_plugins.audio.reading import announced_seconds, load_audio, read_audio, stream_audio
from ser_plugins.errors import InputError

RATE, SECONDS = 16000, 12.0
BY_SOUNDFILE = {  # suffix: format, subtype, largest error where it is of a sample
    "wav": ("WAV", "PCM_16", 2**-15),
    "float.wav": ("WAV", "FLOAT", 1e-7),
    "gsm.wav": ("WAV", "GSM610", None),
    "ima.wav": ("WAV", "IMA_ADPCM", 0.1),
    "aiff": ("AIFF", "PCM_16", 2**-15),
    "au": ("AU", "ULAW", 0.03),
    "flac": ("FLAC", "PCM_16", 2**-15),
    "ogg": ("OGG", "VORBIS", None),
    "opus": ("OGG", "OPUS", None),
    "mp3": ("MP3", "MPEG_LAYER_III", None),
    "w64": ("W64", "PCM_16", 2**-15),
    "caf": ("CAF", "PCM_16", 2**-15),
    "alac.caf": ("CAF", "ALAC_16", 2**-15),
}
BY_FFMPEG = {  # suffix: codec, container, options
    "m4a": ("aac", "ipod", {}),
    "fast.m4a": ("aac", "ipod", {"movflags": "faststart"}),
    "fragments.m4a": ("aac", "ipod", {"movflags": "frag_keyframe+empty_moov"}),
    "adts.aac": ("aac", "adts", {}),
    "oga": ("flac", "ogg", {}),
    "webm": ("libopus", "webm", {}),
    "mkv": ("pcm_s16le", "matroska", {}),
    "mp2": ("mp2", "mp2", {}),
}
# Of these, a half says how long the whole was.
COUNTED = ("wav", "float.wav", "gsm.wav", "aiff", "au", "flac", "mp3", "w64", "alac.caf", "fast.m4a", "webm")
CASES = os.environ.get("SER_PLUGINS_CASES")


def encode(path, samples, codec, container, options):
    rate = 48000 if codec == "libopus" else RATE
    with av.open(str(path), "w", format=container, options=options) as file:
        stream = file.add_stream(codec, rate=rate, layout="mono")
        resampler = av.AudioResampler(stream.codec_context.format, "mono", rate)
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.rate = RATE
        for out in [*resampler.resample(frame), *resampler.resample(None), None]:
            for packet in stream.encode(out):
                if packet.size:  # FLAC ends with a header for files that can be written to at their beginning
                    file.mux(packet)


@pytest.fixture(scope="module")
def tone():
    """A chirp: whatever is repeated, lost or moved shows."""
    t = np.arange(round(SECONDS * RATE)) / RATE
    return (0.4 * np.sin(2 * np.pi * (200 + 20 * t) * t)).astype(np.float32)


@pytest.fixture(scope="module")
def files(tmp_path_factory, tone):
    """One file of each format."""
    folder = tmp_path_factory.mktemp("formats")
    for suffix, (kind, subtype, _) in BY_SOUNDFILE.items():
        sf.write(folder / f"clip.{suffix}", tone, 8000 if "GSM" in subtype else RATE, format=kind, subtype=subtype)
    for suffix, kind in BY_FFMPEG.items():
        encode(folder / f"clip.{suffix}", tone, *kind)
    return {suffix: folder / f"clip.{suffix}" for suffix in [*BY_SOUNDFILE, *BY_FFMPEG]}


@pytest.mark.parametrize("suffix", [*BY_SOUNDFILE, *BY_FFMPEG])
def test_what_was_written_is_read(files, tone, suffix):
    samples, rate, warning = read_audio(files[suffix])
    seconds = 2 * SECONDS if suffix == "gsm.wav" else SECONDS
    assert warning is None and samples.dtype == np.float32 and samples.shape[1] == 1
    assert len(samples) / rate == pytest.approx(seconds, abs=0.15)
    assert np.sqrt(np.mean(samples**2)) == pytest.approx(0.4 / np.sqrt(2), rel=0.05)
    if (error := BY_SOUNDFILE.get(suffix, (0, 0, None))[2]) is not None:
        np.testing.assert_allclose(samples[100 : len(tone), 0], tone[100:], atol=error)  # ADPCM needs a start


@pytest.mark.parametrize("suffix", [*BY_SOUNDFILE, *BY_FFMPEG])
@pytest.mark.parametrize("change", ["none", "half", "damaged"])
def test_a_stream_is_the_whole_file(files, tmp_path, suffix, change):
    content = np.frombuffer(files[suffix].read_bytes(), np.uint8).copy()
    if change == "half":
        content = content[: len(content) // 2]
    elif change == "damaged":
        rng = np.random.default_rng(0)
        content[rng.integers(5000, len(content) - 2000, 30)] ^= rng.integers(1, 256, 30).astype(np.uint8)
    path = tmp_path / f"clip.{suffix}"
    path.write_bytes(content.tobytes())
    try:
        whole = read_audio(path)
    except InputError:  # the end of an m4a says where its audio is
        assert change != "none" and suffix in {"m4a", "mkv", "oga"}
        with pytest.raises(InputError):
            list(stream_audio(path))
        return
    for seconds in (0.3, 10.0):
        stream = stream_audio(path, seconds)
        blocks, rates = zip(*stream, (np.empty((0, 1)), whole.rate), strict=True)
        assert set(rates) == {whole.rate} and max(map(len, blocks)) <= seconds * whole.rate
        assert all(map(len, blocks[:-1]))
        np.testing.assert_array_equal(np.concatenate(blocks), whole.samples)
        assert stream.warning == whole.warning


@pytest.mark.parametrize("suffix", COUNTED)
def test_a_half_is_read_with_a_warning_that_says_how_much(files, tmp_path, suffix):
    content = files[suffix].read_bytes()
    path = tmp_path / f"clip.{suffix}"
    path.write_bytes(content[: len(content) // 2])
    whole, (samples, rate, warning) = read_audio(files[suffix]).samples, read_audio(path)
    assert 0.35 * len(whole) < len(samples) < 0.6 * len(whole)
    np.testing.assert_allclose(samples[:-2400], whole[: len(samples) - 2400], atol=1e-6)
    seconds = len(whole) / rate
    assert f"only {len(samples) / rate:.2f} s of " in warning
    assert float(warning.split(" of ")[1].split()[0]) == pytest.approx(seconds, abs=0.15)


def test_an_mp3_is_read_past_damage(files, tmp_path):
    whole = read_audio(files["mp3"]).samples
    content = np.frombuffer(files["mp3"].read_bytes(), np.uint8).copy()
    content[len(content) // 2 : len(content) // 2 + 60] ^= 0x5A
    (tmp_path / "clip.mp3").write_bytes(content.tobytes())
    samples, rate, _ = read_audio(tmp_path / "clip.mp3")
    assert len(whole) - 0.3 * rate < len(samples) <= len(whole) and np.isfinite(samples).all()


def test_lost_packets_are_counted(files, tmp_path):
    content = np.frombuffer(files["adts.aac"].read_bytes(), np.uint8).copy()
    rng = np.random.default_rng(0)
    content[rng.integers(5000, len(content), 60)] ^= 0xFF
    (tmp_path / "clip.aac").write_bytes(content.tobytes())
    samples, rate, warning = read_audio(tmp_path / "clip.aac")
    assert len(samples) < (SECONDS - 0.2) * rate and "could be read" in warning


@pytest.mark.parametrize("loud_first", [True, False])
def test_an_mp3_whose_length_can_only_be_guessed_is_read_to_its_end(tmp_path, loud_first):
    """Of variable bit rate, without a count of its frames, as a pipe leaves it: the guess is wrong by far."""
    rng = np.random.default_rng(0)
    parts = [rng.normal(0, 0.2, 48000 * 2), np.zeros(48000 * 20)]
    samples = np.concatenate(parts if loud_first else parts[::-1])
    path = tmp_path / "clip.mp3"
    sf.write(path, samples, 48000, format="MP3", subtype="MPEG_LAYER_III", bitrate_mode="VARIABLE", compression_level=0)
    path.write_bytes(path.read_bytes().replace(b"Xing", b"\0\0\0\0"))
    assert abs(sf.info(path).duration - 22) > 3, "the guess is right: this tests nothing"
    read = read_audio(path)
    assert len(read.samples) / 48000 == pytest.approx(22, abs=0.1) and read.warning is None
    assert announced_seconds(path) == 0 < announced_seconds(path, guess=True)


def test_a_flac_of_unknown_or_wrong_length_is_read_to_its_end(files, tone, tmp_path):
    content = files["flac"].read_bytes()
    for count in (0, 1000, 1 << 35):  # of the 36 bits from byte 21.5 on
        patched = bytearray(content)
        patched[21] = patched[21] & 0xF0 | count >> 32
        patched[22:26] = (count & 0xFFFFFFFF).to_bytes(4, "big")
        (tmp_path / "clip.flac").write_bytes(patched)
        samples, rate, warning = read_audio(tmp_path / "clip.flac", most_seconds=600)
        assert samples.shape == (len(tone), 1) and rate == RATE and (warning is not None) == (count > len(tone))


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFF024])
def test_a_wav_from_a_pipe_is_read_without_a_warning(files, tone, tmp_path, size):
    content = bytearray(files["wav"].read_bytes())
    content[4:8] = content[40:44] = size.to_bytes(4, "little")
    (tmp_path / "clip.wav").write_bytes(content)
    samples, _, warning = read_audio(tmp_path / "clip.wav")
    assert samples.shape == (len(tone), 1) and warning is None


def test_two_mp3s_in_one_file_are_read_both(files, tmp_path):
    (tmp_path / "both.mp3").write_bytes(files["mp3"].read_bytes() * 2)
    samples, rate, _ = read_audio(tmp_path / "both.mp3")
    assert len(samples) / rate == pytest.approx(2 * SECONDS, abs=0.2)


@pytest.mark.parametrize("suffix", ["mp3", "adts.aac", "flac"])
def test_a_large_tag_of_any_encoding_is_passed_over(files, tmp_path, suffix):
    body, size = np.random.default_rng(0).bytes(1_500_000), 1_500_000
    title = b"TIT2" + (8).to_bytes(4, "big") + b"\0\0" + b"\0\xdelu\xffou\xe8"
    frames = title + b"APIC" + (size - len(title) - 10).to_bytes(4, "big") + b"\0\0" + body[: size - len(title) - 10]
    tag = b"ID3\x03\0\0" + bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0)) + frames
    path = tmp_path / files[suffix].name
    path.write_bytes(tag + files[suffix].read_bytes())
    np.testing.assert_array_equal(read_audio(path).samples, read_audio(files[suffix]).samples)


def test_a_title_that_is_no_utf8_is_no_hindrance(files, tmp_path, tone):
    path = tmp_path / "clip.m4a"
    with av.open(str(path), "w", format="ipod") as file:
        file.metadata["title"] = "Zzzzzzzz"
        stream = file.add_stream("aac", rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone[None], format="fltp", layout="mono")
        frame.rate = RATE
        file.mux([*stream.encode(frame), *stream.encode(None)])
    content = path.read_bytes()
    assert b"Zzzzzzzz" in content
    path.write_bytes(content.replace(b"Zzzzzzzz", b"\xbelu\xbbou\xe8k"))
    assert len(read_audio(path).samples) / RATE == pytest.approx(SECONDS, abs=0.15)


@pytest.mark.parametrize("name", ["-dash.wav", "a:b.m4a", "http:x.mp3", "clip.raw", "ünï.mp3", "noname"])
def test_any_name_is_a_file(files, tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    suffix = {"wav": "wav", "m4a": "m4a", "mp3": "mp3"}.get(name.rsplit(".")[-1], "mp3")
    Path(name).write_bytes(files[suffix].read_bytes())
    np.testing.assert_array_equal(read_audio(name).samples, read_audio(files[suffix]).samples)


@pytest.mark.parametrize("text", ["ffconcat version 1.0\nfile clip.wav\n", "#EXTM3U\n#EXTINF:10,\nclip.wav\n"])
def test_a_list_opens_no_other_file(files, text):
    path = files["wav"].with_name("list.wav")
    path.write_text(text)
    with pytest.raises(InputError, match=r"list\.wav is not readable as audio"):
        read_audio(path)


def test_a_rate_that_changes_on_the_way_is_that_of_the_beginning(tmp_path):
    parts = []
    for rate, hertz in ((48000, 440), (44100, 880)):
        sf.write(tmp_path / "part.mp3", 0.3 * np.sin(2 * np.pi * hertz * np.arange(2 * rate) / rate), rate)
        parts.append((tmp_path / "part.mp3").read_bytes())
    (tmp_path / "both.mp3").write_bytes(b"".join(parts))
    samples, rate, _ = read_audio(tmp_path / "both.mp3")
    assert rate == 48000 and len(samples) / rate == pytest.approx(4, abs=0.2)
    second = abs(np.fft.rfft(samples[-48000 - 4800 : -4800, 0]))
    assert second.argmax() == pytest.approx(880, abs=2)


def test_what_is_no_file_is_an_error_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "folder.wav").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        os.chdir(tmp_path)
        server.bind("socket.wav")
        for name, said in {
            "pipe.wav": "is a pipe, a socket or a device; save the audio as a file",
            "socket.wav": "is a pipe, a socket or a device",
            "/dev/zero": "is a pipe, a socket or a device",
            "folder.wav": "is a folder",
            "gone.wav": "is missing",
            "gone.wav/clip.wav": "is missing",
        }.items():
            for read in (read_audio, lambda path: list(stream_audio(path))):
                with pytest.raises(InputError, match=said) as error:
                    read(name)
                assert str(error.value).startswith(name) and "\n" not in str(error.value)
            assert announced_seconds(name) == 0


def test_a_file_without_permission_is_named(tmp_path, monkeypatch):
    sf.write(tmp_path / "clip.wav", np.ones(4000), RATE)

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(reading, "open", refuse, raising=False)  # root may read everything
    with pytest.raises(InputError, match=r"clip\.wav cannot be read \(Permission denied\); check its permissions"):
        read_audio(tmp_path / "clip.wav")


@pytest.mark.parametrize("suffix", ["wav", "mp3", "aac", "flac", "m4a", ""])
@pytest.mark.parametrize("filling", [b"\0", b"\xff", b"hello world, "])
def test_a_large_file_that_is_no_sound_is_not_read_whole(tmp_path, suffix, filling):
    path = tmp_path / f"no.{suffix}"
    block = filling * (1_000_000 // len(filling))
    with open(path, "wb") as file:
        file.write(block)
        file.truncate(400_000_000)  # sparse
    start = time.perf_counter()
    tracemalloc.start()
    with pytest.raises(InputError, match="not readable as audio"):
        read_audio(path)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()
    assert time.perf_counter() - start < 1.5


def test_a_long_recording_is_refused_by_its_header(tmp_path, monkeypatch):
    path = tmp_path / "long.wav"
    sf.write(path, np.zeros(16000), RATE, subtype="PCM_16")
    content = bytearray(path.read_bytes())
    content[4:8], content[40:44] = (2_000_000_036).to_bytes(4, "little"), (2_000_000_000).to_bytes(4, "little")
    path.write_bytes(content)
    os.truncate(path, 2_000_000_044)  # sparse
    monkeypatch.setattr(reading, "AudioStream", None)
    with pytest.raises(InputError, match=r"long\.wav: 62500 s of audio is too long for one utterance"):
        read_audio(path, 600)


def test_a_long_recording_is_refused_once_enough_was_read(files, monkeypatch):
    monkeypatch.setattr(reading, "announced_seconds", lambda path: 0.0)
    for suffix in ("wav", "mp3", "m4a"):
        with pytest.raises(InputError, match="10 s of audio is too long"):
            read_audio(files[suffix], most_seconds=9)


def test_a_warning_is_logged(files, tmp_path, caplog):
    content = files["mp3"].read_bytes()
    (tmp_path / "half.mp3").write_bytes(content[: len(content) // 2])
    samples, rate = load_audio(tmp_path / "half.mp3")
    assert f"half.mp3: only {len(samples) / rate:.2f} s of 12.0" in caplog.text


@pytest.mark.skipif(not CASES, reason="SER_PLUGINS_CASES names no folder")
@pytest.mark.parametrize(
    ("name", "seconds", "warns"),
    [
        ("mp3_vbr_ffmpeg_pipe.mp3", 25.46, False),
        ("mp3_truncated_half.mp3", 12.67, True),
        ("mp3_damaged.mp3", 25.37, False),
        ("flac_pipe.flac", 25.43, False),
        ("ogg_flac.oga", 25.43, False),
        ("m4a_latin1_title.m4a", 25.43, False),
        ("gsm.wav", 25.44, False),
    ],
)
def test_cases(name, seconds, warns):
    path = Path(CASES) / "audio" / name
    samples, rate, warning = read_audio(path)
    assert len(samples) / rate == pytest.approx(seconds, abs=0.01) and (warning is not None) == warns
    np.testing.assert_array_equal(np.concatenate([block for block, _ in stream_audio(path, 3)]), samples)


def test_m4a_is_what_was_encoded(write_aac, tmp_path):
    time = np.arange(16000) / 16000
    tone = 0.4 * np.sin(2 * np.pi * 440 * time)
    write_aac(tmp_path / "1.m4a", tone)
    samples, rate = load_audio(tmp_path / "1.m4a")
    assert rate == 16000 and samples.shape[1] == 1 and 16000 <= len(samples) < 19000
    spectrum = np.abs(np.fft.rfft(samples[2000:14000, 0]))
    assert spectrum.argmax() * 16000 / 12000 == pytest.approx(440, abs=2)
    assert np.abs(samples[2000:14000]).max() == pytest.approx(0.4, abs=0.06)


@pytest.mark.parametrize(
    ("name", "codec", "kind", "error"),
    [("1.m4a", "alac", "s16p", 2**-15), ("1.m4a", "alac", "s32p", 2**-23), ("1.mov.mp4", "pcm_s16le", "s16", 2**-15)],
)
@pytest.mark.parametrize("channels", [1, 2])
def test_what_else_such_a_file_holds_is_on_the_same_scale(tmp_path, name, codec, kind, error, channels):
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    samples = np.stack([tone, 0.5 * tone][:channels])
    whole = np.round(samples * 2 ** (31 if kind == "s32p" else 15)).astype(np.int32 if kind == "s32p" else np.int16)
    layout = ["mono", "stereo"][channels - 1]
    with av.open(str(tmp_path / name), "w", format="mov") as container:
        stream = container.add_stream(codec, rate=16000, layout=layout, format=kind)
        given = whole if kind.endswith("p") else whole.T.reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(given), format=kind, layout=layout)
        frame.rate = 16000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    loaded, rate = load_audio(tmp_path / name)
    assert rate == 16000 and loaded.dtype == np.float32 and loaded.shape == (16000, channels)
    np.testing.assert_allclose(loaded, samples.T, atol=error)


def test_an_m4a_that_was_damaged_is_read_or_told(write_aac, tmp_path):
    path, rng = tmp_path / "1.m4a", np.random.default_rng(0)
    write_aac(path, 0.1 * rng.normal(size=8000))
    whole, told = np.frombuffer(path.read_bytes(), np.uint8), 0
    for _ in range(150):
        spoilt = whole.copy()
        spoilt[rng.integers(len(whole), size=20)] = rng.integers(256, size=20)
        path.write_bytes(spoilt.tobytes())
        try:
            load_audio(path)
        except InputError as error:
            told += "not readable as audio" in str(error)
        announced_seconds(path, guess=True)
    assert told > 0


@pytest.mark.parametrize("data", [b"", b"no audio", b"\x00\x00\x00\x20ftypM4A half of one"])
def test_an_m4a_that_is_none_is_told(tmp_path, data):
    (tmp_path / "1.m4a").write_bytes(data)
    with pytest.raises(InputError, match=r"1\.m4a is not readable as audio"):
        load_audio(tmp_path / "1.m4a")
