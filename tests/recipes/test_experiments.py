"""recipes/experiments.py as its users run it."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ser_plugins.corpora.synthetic import Synthetic
from ser_plugins.errors import InputError
from ser_plugins.experiments.jobs import Job, make_ready, plan, run_jobs

ROOT = Path(__file__).parents[2]


def experiments(*words: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "recipes/experiments.py", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture
def options(arguments, tmp_path):
    """All but strategy and initial weights of the shortest run into ``tmp_path / "out"``."""
    words = arguments("s1", tmp_path / "out", number_of_epochs=1)[1:]
    if "--pretrained_encoder" in words:
        index = words.index("--pretrained_encoder")
        del words[index : index + 2]
    return words


@pytest.mark.slow
def test_table2_trains_what_is_missing_and_resumes_past_failures(options, tmp_path):
    words = ("table2", "--strategies", "s1,s3", "--folds", "2", *options)
    none = experiments(*words, "--pretrained_encoder", "./nowhere")
    assert none.returncode == 1 and none.stderr.strip().splitlines()[-1].startswith(
        "error: no model at ./nowhere; give"
    )
    assert not list(tmp_path.rglob("metrics.json"))

    begun = tmp_path / "out" / "S3" / "synthetic" / "1" / "fold2" / "hyperparams.yaml"
    (begun.parent / "save" / "CKPT+1").mkdir(parents=True)
    begun.write_text("lr: 7")
    first = experiments(*words, "--pretrained_encoder", "none")
    assert first.returncode == 1
    told, cause = first.stderr.strip().splitlines()[-2:]
    assert told.startswith("error: 1 of the runs failed") and cause.endswith("fold2.log")
    assert "S3/synthetic/1/fold2 holds a run of other hyper-parameters (lr differs); delete it" in cause
    begun.unlink()
    done = tmp_path / "out" / "S1" / "synthetic" / "1" / "fold2" / "metrics.json"
    before = done.stat().st_mtime_ns

    second = experiments(*words, "--pretrained_encoder", "none")
    assert second.returncode == 0, second.stderr
    assert "1 runs to do" in second.stdout and done.stat().st_mtime_ns == before
    rows = json.loads((tmp_path / "out" / "table2.json").read_text())
    assert [row["strategy"] for row in rows] == ["S1", "S3"]
    for row in rows:
        metrics = json.loads((tmp_path / "out" / row["folder"] / "fold2" / "metrics.json").read_text())
        assert row["mean"] == pytest.approx(100 * metrics["accuracy"]) and row["n_actors"] == 2
        assert metrics["command"].startswith(f"python recipes/train.py hparams/{row['strategy'].lower()}.yaml")
    assert (tmp_path / "out" / "table2.md").read_text() in second.stdout

    other = experiments(*words, "--pretrained_encoder", "none", "--lr", "0.1")
    assert (
        other.returncode == 1
        and "S1/synthetic/1/fold2 holds a run of other hyper-parameters (lr differs)" in other.stderr
    )

    sweep = experiments("sweep", "clusters=4,6", "--strategy", "s1", "--fold", "2", "--jobs", "2", *options)
    assert sweep.returncode == 0, sweep.stderr
    for value in (4, 6):
        fold = tmp_path / "out" / "sweeps" / "clusters" / str(value) / "S1" / "synthetic" / "1" / "fold2"
        assert f"\nclusters: {value}\n" in (fold / "hyperparams.yaml").read_text()

    report = experiments("report", tmp_path / "out")
    assert report.returncode == 0 and "Sweep of clusters" in (tmp_path / "out" / "report.html").read_text()
    assert {path.name for path in (tmp_path / "out" / "figures").glob("*.png")} == {
        *(
            "confusion-S1-synthetic-1.png",
            "confusion-S3-synthetic-1.png",
            "tsne-synthetic-1.png",
            "sweep-clusters-synthetic.png",
        )
    }


@pytest.mark.slow
def test_table3_trains_competitors_under_the_same_folds(arguments, tmp_path):
    options = arguments("bhavan", tmp_path / "out", number_of_epochs=1)[1:]
    result = experiments("table3", "--strategies", "bhavan,s1", "--folds", "2", *options)
    assert result.returncode == 0, result.stderr
    [row] = json.loads((tmp_path / "out" / "table3.json").read_text())
    assert row["strategy"] == "Bhavan" and row["n_actors"] == 2
    folds = [tmp_path / "out" / name / "synthetic" / "1" / "folds.csv" for name in ("Bhavan", "S1")]
    assert folds[0].read_bytes() == folds[1].read_bytes()
    assert (tmp_path / "out" / "table3.md").read_text() in result.stdout

    shutil.rmtree(tmp_path / "out" / "Bhavan")
    begun = tmp_path / "out" / "Bhavan" / "synthetic" / "1" / "fold2" / "hyperparams.yaml"
    (begun.parent / "save" / "CKPT+1").mkdir(parents=True)
    begun.write_text("lr: 7")
    failed = experiments("table3", "--strategies", "bhavan", "--folds", "2", *options)  # S1 is none of Table 3
    assert failed.returncode == 1 and "holds a run of other hyper-parameters (lr differs)" in failed.stderr


def test_what_is_finished_is_not_planned(options, tmp_path):
    hparams = [ROOT / "hparams" / f"{name}.yaml" for name in ("s1", "s5")]
    finished = tmp_path / "S5" / "synthetic" / "3" / "fold2" / "metrics.json"
    finished.parent.mkdir(parents=True)
    finished.touch()
    keys = [*options[: options.index("--output_folder")], "--vad", "none", "--seed", "3"]
    jobs = plan(hparams, "1,2", keys, tmp_path)
    assert [(job.folder, job.fold) for job in jobs] == [
        *((tmp_path / "S1" / "synthetic" / "3", fold) for fold in (1, 2)),
        (tmp_path / "S5" / "synthetic" / "3", 1),
    ]
    assert jobs[-1].arguments[:3] == [str(hparams[1]), "--output_folder", str(jobs[-1].folder)]
    assert jobs[-1].arguments[-2:] == ["--fold", "1"]
    assert len(plan(hparams[:1], "all", keys, tmp_path)) == 10
    with pytest.raises(InputError, match="did you mean clusters"):
        plan(hparams, "1", [*keys, "--cluster", "4"], tmp_path)


def test_each_corpus_is_made_ready_once(options, tmp_path, monkeypatch):
    hparams = [ROOT / "hparams" / f"{name}.yaml" for name in ("s1", "s5")]
    keys = [*options[: options.index("--output_folder")], "--pretrained_encoder", "none"]
    jobs = [job for k in "46" for job in plan(hparams, "1,2", [*keys, "--vad", "none", "--clusters", k], tmp_path / k)]
    other = plan(hparams[:1], "1", [*keys, "--vad", "silero"], tmp_path / "other")
    read, made = Synthetic.read, []
    monkeypatch.setattr(Synthetic, "read", lambda self: made.append("read") or read(self))
    prepared = "ser_plugins.experiments.jobs.prepare_corpus"
    monkeypatch.setattr(prepared, lambda recipe, corpus: made.append(recipe.normalizer().vad))
    make_ready(jobs)
    assert len(jobs) == 8 and made == ["read", "none"]
    make_ready([*jobs, *other])
    assert made[2:] == ["read", "read", "none", "silero"]


def test_jobs_run_side_by_side_and_tell_how_they_failed(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(
        "import sys, time, pathlib\n"
        "mine, other = map(pathlib.Path, sys.argv[1:3])\n"
        "mine.touch()\n"
        "deadline = time.monotonic() + 60\n"
        "while not other.exists() and time.monotonic() < deadline: time.sleep(0.01)\n"
        "print('met' if other.exists() else 'alone')\n"
        "sys.exit(sys.argv[3] if len(sys.argv) > 3 else 0)\n"
    )
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    jobs = [
        Job([a, b], tmp_path / "S1", 1),
        Job([b, a, "error: no data; give some"], tmp_path / "S1", 2),
        Job([a, b], tmp_path / "S3", 1),
    ]
    failed = run_jobs(jobs, script, 2)
    log = tmp_path / "S1" / "fold2.log"
    assert failed == [f"{tmp_path / 'S1'}, fold 2: error: no data; give some; see {log}"]
    assert [job.log.read_text().splitlines()[0] for job in jobs] == ["met"] * 3


def test_a_run_that_was_killed_says_by_what(tmp_path):
    script = tmp_path / "train.py"
    script.write_text("import os, signal\nprint('fold 1 of 10', flush=True)\nos.kill(os.getpid(), signal.SIGKILL)\n")
    [failure] = run_jobs([Job([], tmp_path, 1)], script, 1)
    assert failure == f"{tmp_path}, fold 1: killed by signal 9; see {tmp_path / 'fold1.log'}"


def runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_ended_from_outside_it_ends_what_it_runs(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(
        "import os, pathlib, sys, time\npathlib.Path(sys.argv[1]).write_text(str(os.getpid()))\ntime.sleep(120)\n"
    )
    pids = [tmp_path / name for name in "abc"]
    jobs = [f"Job(['{pid}'], Path('{tmp_path}'), {fold})" for fold, pid in enumerate(pids)]
    code = f"run_jobs([{', '.join(jobs)}], Path('{script}'), 2)"
    imports = "from pathlib import Path; from ser_plugins.experiments.jobs import Job, run_jobs"
    process = subprocess.Popen([sys.executable, "-c", f"{imports}; {code}"], cwd=ROOT)
    deadline = time.monotonic() + 120
    while not all(pid.is_file() and pid.read_text() for pid in pids[:2]) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.terminate()
    assert process.wait(timeout=30) == 143
    ended = [int(pid.read_text()) for pid in pids[:2]]
    while any(map(runs, ended)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(runs, ended)) and not pids[2].is_file()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["sweep", "clusters=few", "--corpus", "synthetic"], "clusters=few: give a key and numbers"),
        (["sweep", "clusters=4,inf", "--corpus", "synthetic"], "clusters=4,inf: give a key and numbers"),
        (["sweep", "=4", "--corpus", "synthetic"], "=4: give a key and numbers"),
        (["figures", "results", "--fold", "1"], "unknown arguments: --fold 1"),
        (["report", "nowhere"], "error: nowhere has no finished fold; give the folder of the results"),
        (["table2", "--strategies", "s99"], "hparams/s99.yaml (no such file); give a YAML file or a preset: "),
        (["table2", "--folds", "first"], "error: --fold first: give a number from 1 to 10, some as 1,2,3, or all"),
    ],
)
def test_mistakes_are_told_in_one_line(experiments_recipe, words, told, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["experiments.py", *words])
    with pytest.raises(SystemExit) as ended:
        experiments_recipe.main()
    # argparse has printed its line; other errors are the exit's own.
    said = f"{capsys.readouterr().err}{ended.value.code}" if ended.value.code == 2 else ended.value.code
    assert ended.value.code and told in str(said)
