"""Tables of a cluster against those of one machine."""

import multiprocessing
import os
import signal
import subprocess
import sys
import tarfile
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from ser_plugins.commands import main
from ser_plugins.inference import cluster, embed, predict
from ser_plugins.inference.cluster import FileEmbedder, FilePredictor, PartWriter, plan_parts, write_parts

LABELS = ["neutral", "happy", "sad"]


def write_shard(path, files):
    """A shard as WebDataset has it: a sound file and a text of the same key."""
    with tarfile.open(path, "w") as tar:
        for number, file in enumerate(files):
            tar.add(file, f"{number:03d}{Path(file).suffix}")
            tar.add(__file__, f"{number:03d}.json")
    return str(path)


def assert_same_rows(found, expected):
    assert list(found.columns) == list(expected.columns)
    for name in expected:
        if name in ("seconds", "probability", *LABELS):
            np.testing.assert_allclose(found[name].astype(float), expected[name].astype(float), atol=1e-5)
        elif name == "embedding":
            for one, other in zip(found[name], expected[name], strict=True):
                assert (one is None) == (other is None)
                np.testing.assert_allclose([] if one is None else one, [] if other is None else other, atol=1e-5)
        else:
            assert found[name].fillna("").tolist() == expected[name].fillna("").tolist()


def test_rows_are_those_of_one_machine(model, model_folder, clips):
    files = [str(path) for path in sorted(clips.rglob("*.*"))]
    assert_same_rows(FileEmbedder(model_folder)({"path": np.array(files)}).to_pandas(), embed(model, files))
    predictor = FilePredictor(model_folder, labels=["sad", "happy"], unknown=0.5)
    expected = predict(model, files, labels=["sad", "happy"], unknown=0.5)
    assert_same_rows(predictor({"path": files}).to_pandas(), expected)
    assert predictor({"path": []}).to_pandas().empty


def test_a_shard_has_the_rows_of_its_files(model, model_folder, clips, tmp_path):
    files = [str(path) for path in sorted(clips.glob("*.*")) if path.suffix != ".txt"]
    shard = write_shard(tmp_path / "0.tar", files)
    found = FilePredictor(model_folder)({"path": [files[0], shard, files[1]]}).to_pandas()
    expected = predict(model, files)
    assert_same_rows(pd.concat([found[:1], found[-1:]]), expected[:2])
    within, names = found[1:-1], [f"{shard}/{number:03d}{Path(file).suffix}" for number, file in enumerate(files)]
    assert within["path"].tolist() == names
    for row, name in zip(within.itertuples(), names, strict=True):
        assert pd.isna(row.error) or name in row.error
    assert within["error"].isna().tolist() == expected["error"].isna().tolist()
    assert 0 < within["error"].isna().sum() < len(within)
    values = ["seconds", "emotion", "probability", *LABELS, "warning"]
    assert_same_rows(within[values], expected[values])


def test_a_shard_that_is_cut_off_has_an_error_and_the_rows_before(model_folder, clips, tmp_path):
    files = sorted(clips.glob("clip*.WAV"))
    shard = Path(write_shard(tmp_path / "0.tar", files))
    shard.write_bytes(shard.read_bytes()[: files[0].stat().st_size + files[1].stat().st_size // 2])
    found = FileEmbedder(model_folder)({"path": [shard, tmp_path / "none.tar"]}).to_pandas()
    assert found["path"].tolist() == [f"{shard}/000.WAV", str(shard), str(tmp_path / "none.tar")]
    assert found["error"].isna().tolist() == [True, False, False]
    assert all(error.endswith("copy the shard again") and str(tmp_path) in error for error in found["error"][1:])


def test_parts_hold_each_file_once():
    files = [f"{number}.wav" for number in range(11)]
    parts = plan_parts([*files[:7], "a.tar", "b.tar", *files[7:]], size=3)
    assert list(parts.values()) == [files[:3], files[3:6], files[6:7], ["a.tar"], ["b.tar"], files[7:10], files[10:]]
    assert list(parts) == sorted(parts)


def deadly(name):
    """Kill the process that reads a file."""
    from ser_plugins.inference import files

    read = files.read_audio

    def read_audio(path, *limit):
        if path.endswith(name):
            os.kill(os.getpid(), signal.SIGKILL)
        return read(path, *limit)

    files.read_audio = read_audio


def test_a_file_that_kills_its_worker_is_a_row_with_an_error_when_the_part_is_tried_again(
    model_folder, clips, tmp_path, monkeypatch
):
    files = [str(path) for path in sorted(clips.glob("clip*.WAV"))]

    def work():
        torch.set_num_threads(1)
        deadly(Path(files[1]).name)
        PartWriter(partial(FileEmbedder, model_folder, device="cpu"), tmp_path)(
            {"part": ["0.parquet"], "paths": [files]}
        )

    codes = []
    for _ in range(2):
        worker = multiprocessing.get_context("fork").Process(target=work)
        worker.start()
        worker.join(60)
        codes.append(worker.exitcode)
    assert codes == [-signal.SIGKILL, 0]
    found = pd.read_parquet(tmp_path / "0.parquet")
    assert found["path"].tolist() == files and found["error"].notna().tolist() == [path == files[1] for path in files]
    assert "the process that read it died" in found["error"][1]
    assert not (tmp_path / ".0.parquet.begun").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--ray", "local"], "--ray writes a folder of Parquet parts; give the name of a folder as --output"),
        (["--ray", "local", "--output", "a.csv"], "--ray writes a folder of Parquet parts; give the name of a folder"),
        (["--ray", "local", "--output", "out", "--jobs", "2"], "with --ray each worker reads for itself; leave --jobs"),
        (["--ray", "local", "--timeline"], "--ray is for predict and embed; leave it out of timelines"),
        (["--ray", "local", "--output", "out"], r'--ray needs Ray; pip install "ser-plugins\[ray\]"'),
    ],
)
def test_wrong_options_are_one_line(model_folder, clips, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.data", None)
    with pytest.raises(SystemExit, match=rf"^error: {message}") as end:
        main(["predict", str(clips), "--model", str(model_folder), *words])
    assert "\n" not in str(end.value.code) and not os.listdir(tmp_path)


def test_a_shard_without_a_cluster_is_one_line(model_folder, clips, tmp_path):
    shard = write_shard(tmp_path / "0.tar", clips.glob("clip*.WAV"))
    with pytest.raises(SystemExit, match=r"^error: .*0\.tar is a shard, which is read by --ray; on one machine give"):
        main(["predict", shard, "--model", str(model_folder)])


def test_a_folder_of_something_else_is_refused(tmp_path):
    cluster.begin_parts(tmp_path / "new", "one")
    cluster.begin_parts(tmp_path / "new", "one")
    with pytest.raises(ValueError, match=r"new is of another model, other files or options; delete it"):
        cluster.begin_parts(tmp_path / "new", "two")
    with pytest.raises(ValueError, match=r"holds something else; give another folder"):
        cluster.begin_parts(tmp_path, "one")


@pytest.fixture(scope="module")
def two_nodes():
    """The address of a Ray cluster of two nodes with a processor each."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    nodes.add_node(num_cpus=1)
    yield nodes.address
    import ray

    ray.shutdown()
    nodes.shutdown()


@pytest.mark.slow
def test_a_cluster_writes_what_one_machine_does_and_goes_on(
    two_nodes, model_folder, model, clips, tmp_path, monkeypatch
):
    """As the user sees it; a second run computes the part that is missing alone."""
    files = [str(path) for path in sorted(clips.glob("clip*.*"))]
    shards = [write_shard(tmp_path / f"{number}.tar", files[number::2]) for number in range(2)]
    output = tmp_path / "out"
    words = [sys.executable, "-m", "ser_plugins", "predict", clips, *shards, "--model", model_folder]
    words = [*map(str, words), "--ray", two_nodes, "--output", str(output)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def run():
        done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == str(output) and "files could not be used" in done.stderr
        return pd.read_parquet(output)

    found = run()
    expected = predict(model, [clips])
    within = predict(model, [*files[0::2], *files[1::2]])
    names = [
        f"{shard}/{i:03d}{Path(file).suffix}" for n, shard in enumerate(shards) for i, file in enumerate(files[n::2])
    ]
    assert_same_rows(found, pd.concat([expected, within.assign(path=names)], ignore_index=True))
    parts = sorted(output.glob("part-*.parquet"))
    assert len(parts) == 3 and len(os.listdir(output)) == 4
    times = [part.stat().st_mtime_ns for part in parts]
    parts[1].unlink()
    assert_same_rows(run(), found)
    assert [part.stat().st_mtime_ns == time for part, time in zip(parts, times, strict=True)] == [True, False, True]


@pytest.mark.slow
def test_a_worker_killed_in_the_middle_loses_nothing(two_nodes, model_folder, model, clips, tmp_path):
    """One worker kills itself once in the middle; one file kills whoever reads it."""
    files = [str(path) for path in sorted(clips.glob("clip*.WAV"))]
    once, poison = str(tmp_path / "once"), files[2]

    def make(folder=str(model_folder)):  # nested: Ray sends it by value
        from ser_plugins.inference import cluster, files

        read = files.read_audio

        def read_audio(path, *limit):
            if path == poison or (path == target and not os.path.exists(once)):
                open(once, "w").close()
                os.kill(os.getpid(), signal.SIGKILL)
            return read(path, *limit)

        files.read_audio = read_audio
        return cluster.FileEmbedder(folder, device="cpu")

    target = files[5]
    cluster.connect(two_nodes)
    parts = plan_parts(files, size=2)
    assert sorted(write_parts(parts, make, tmp_path)) == list(parts)
    found = pd.concat([pd.read_parquet(tmp_path / name) for name in parts], ignore_index=True)
    expected = embed(model, files)
    rest = expected["path"] != poison
    assert os.path.exists(once) and found["path"].tolist() == files
    assert_same_rows(found[rest], expected[rest])
    assert "the process that read it died" in found["error"][2]


@pytest.mark.slow
def test_a_batch_of_a_dataset_is_mapped(two_nodes, model_folder, model, clips):
    """As docs/cluster.md shows it."""
    cluster.connect(two_nodes)
    import ray.data

    files = [str(path) for path in sorted(clips.glob("clip*.*"))]
    data = ray.data.from_items([{"path": path} for path in files]).map_batches(
        FilePredictor,
        fn_constructor_kwargs={"model": str(model_folder)},
        batch_size=4,
        num_cpus=1,
        compute=ray.data.ActorPoolStrategy(size=2),
    )
    found = data.to_pandas().sort_values("path", ignore_index=True)
    assert_same_rows(found, predict(model, files))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("address", "words", "message"),
    [
        ("127.0.0.1:1", [], "no Ray cluster at 127.0.0.1:1"),
        (None, ["--model", "gone"], "gone"),
        (None, ["--device", "abacus"], "a worker failed: there is no device abacus; give cpu, or none;"),
    ],
)
def test_what_is_not_there_is_one_line(two_nodes, model_folder, clips, tmp_path, address, words, message):
    words = ["predict", clips, "--model", model_folder, "--ray", address or two_nodes, *words]
    command = [sys.executable, "-m", "ser_plugins", *map(str, words), "--output", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: ") and message in done.stderr.splitlines()[-1]
