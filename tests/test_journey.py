"""The way from a named experiment to answers, as a user walks it: every command by its name, on tiny bars."""

import re
import shutil
import subprocess

import pandas as pd
import pytest

import _served
from _preloaded import preloaded
from _server import serve
from barcast.data.bars import load_bars
from barcast.files import read_json
from barcast.paths import Paths


class User:
    """Somebody in a repository; every command that is typed must end as expected."""

    def __init__(self, paths, bin_folder):
        self.paths = paths
        self.environment = _served.shell(PYTHONPATH=str(paths.root / "src"))
        self.environment["PATH"] = f"{bin_folder}:{self.environment['PATH']}"  # see `_preloaded`

    def types(self, command, ok=True):
        done = subprocess.run(
            command.split(), cwd=self.paths.root, env=self.environment, capture_output=True, text=True, check=False
        )
        assert (done.returncode == 0) == ok, done.stdout + done.stderr
        return done.stdout if ok else done.stderr

    def commits(self, message):
        _served.commit(self.paths.root, message)


@pytest.fixture
def user(trained, tmp_path):
    root = tmp_path / "repository"
    shutil.copytree(trained.root, root, symlinks=True)
    with preloaded(tmp_path / "bin") as bin_folder:
        yield User(Paths(root), bin_folder)


def test_from_a_named_experiment_to_answers_and_back(user, tmp_path):
    root = user.paths.root
    bars = load_bars(root / "data/raw/bars.parquet", ["AAA", "BBB"])
    bars.to_parquet(root / "bars.parquet", index=False)

    # A first answer from three cheap models.
    assert "Ran experiment(s): quick" in user.types("barcast exp quick")
    board = read_json(user.paths.report / "leaderboard.json")["horizons"]["h5"]
    assert {row["model"] for row in board} == {"prior", "logistic", "lightgbm", "ensemble"}
    refused = user.types("barcast exp quick", ok=False)
    assert refused == "error: experiment 'quick' is there already; `barcast exp quick --force` replaces it\n"
    assert "Ran experiment(s): quick" in user.types("barcast exp quick --force")

    # A cell is tuned, and what was found is taken over.
    _served.change(
        root,
        {
            "tune.models": ["logistic"],
            "tune.n_trials": 3,
            "tune.folds": {"scheme": "expanding", "count": 2, "first_train": 0.5, "embargo_bars": 2},
        },
    )
    user.types("dvc repro tune@logistic-5")
    assert re.search(r"^\+ .*h5:", user.types("barcast adopt tune@logistic-5 --params"), re.MULTILINE)
    user.types("dvc repro")
    user.commits("Tuned")

    # The best cell becomes champion, and gives the same answers from a file, over HTTP and to the test split.
    assert "barcast-h5 version 1 is champion" in user.types("barcast promote --horizon 5")
    first = read_json(user.paths.registry(5) / "metadata.json")["cell"]
    user.types("barcast predict bars.parquet --out first.parquet")
    answers = pd.read_parquet(root / "first.parquet")
    known = pd.read_parquet(user.paths.predictions(first, "test"))
    columns = ["datetime", "symbol", "prediction", "p_down", "p_flat", "p_up"]
    joined = known[columns].merge(answers[columns], on=["datetime", "symbol"], suffixes=("", "_served"))
    assert len(joined) == len(known)
    for column in columns[2:]:
        pd.testing.assert_series_equal(joined[column], joined[f"{column}_served"], check_names=False, check_exact=True)
    with serve(root, tmp_path / "server.log") as server:
        status, over_http = server.ask(bars)
    assert status == 200
    assert over_http["prediction"].tolist() == answers["prediction"].tolist()
    assert over_http["p_up"].tolist() == pytest.approx(answers["p_up"].tolist(), abs=1e-9)

    # Another cell takes its place, and the first one comes back.
    other = next(model for model in ("logistic", "lightgbm") if f"{model}_h5" != first)
    second = user.types(f"barcast promote --horizon 5 --model {other} --force")
    assert f"barcast-h5 version 2 is champion: {other}_h5, version 1 is previous" in second
    assert f"version 1 is champion again: {first}" in user.types("barcast rollback --horizon 5")
    user.types("barcast predict bars.parquet --out again.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(root / "again.parquet"), answers, check_exact=True)
