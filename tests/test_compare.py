from __future__ import annotations

import io
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from scipy.stats import spearmanr

from _cells import COMPARE, EVALUATE, register_stubs, score_prior, train_prior, train_stub, write_windows
from _report_cells import write_sources, write_specs
from barcast.cache.fingerprint import Fingerprinter
from barcast.comparison.leaderboard import Leaderboard, Row, load_leaderboard
from barcast.comparison.significance import diebold_mariano
from barcast.config import validate
from barcast.errors import ConfigError, DataError
from barcast.evaluation.evaluator import EvaluateConfig
from barcast.files import read_json, write_json
from barcast.paths import Paths
from barcast.report.tables import render_markdown, render_terminal
from barcast.stages import compare as stage
from barcast.stages.compare import CompareConfig, compare
from barcast.stages.evaluate import evaluate
from barcast.yaml_io import dump_yaml, load_yaml

PLAIN = EVALUATE | {"calibration": {"share": 0.5, "methods": []}}  # which would make the stubs much alike
MODELS = ("prior", "sharp", "blunt", "contrary")
CONFIG = COMPARE | {"cells": [{"model": m, "horizon": h} for m in MODELS for h in (5, 20)]}


def config(**changes) -> CompareConfig:
    return validate(CompareConfig, CONFIG | changes, "compare.yaml", "config")


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """Eight evaluated cells, made once; tests that change files use a copy."""
    paths = Paths(tmp_path_factory.mktemp("cells"))
    with pytest.MonkeyPatch.context() as monkeypatch:
        register_stubs(monkeypatch, "sharp", "blunt", "contrary")
        write_windows(paths, bars=120, horizons=(5, 20))
        for horizon in (5, 20):
            score_prior(paths, horizon, **PLAIN)
            train_prior(paths, horizon)
            for name, sharpness in (("sharp", 1.5), ("blunt", 0.3), ("contrary", -1.0)):
                train_stub(paths, name, horizon, sharpness)
            for name in MODELS:
                evaluate(name, horizon, validate(EvaluateConfig, PLAIN, "evaluate.yaml"), paths)
    write_specs(paths, MODELS, (5, 20))
    write_sources(paths)
    return paths


@pytest.fixture
def paths(evaluated, tmp_path) -> Paths:
    shutil.copytree(evaluated.root, tmp_path, dirs_exist_ok=True)
    return Paths(tmp_path)


def outputs(paths: Paths) -> dict[str, bytes]:
    files = [*(path for path in paths.report.rglob("*") if path.is_file()), paths.metrics]
    return {str(path.relative_to(paths.root)): path.read_bytes() for path in files}


def interval(value: float | None, low: float | None, high: float | None, **more) -> dict[str, float | None]:
    return {"value": value, "low": low, "high": high, **more}


NO_VALUE = interval(None, None, None)


def row(model: str, rank: int = 1, delta: float | None = -0.05, **changes) -> Row:
    measured = ("brier", "macro_f1", "mcc", "auc_ovr", "ece", "sharpe", "max_drawdown", "sharpe_threshold")
    gap = None
    if delta is not None:
        gap = interval(delta, delta - 0.01, delta + 0.01, verdict="better" if delta < -0.01 else "noise")
    return {
        **{name: interval(0.5, 0.4, 0.6) for name in measured},
        "rank": rank,
        "model": model,
        "score": 1.02,
        "val_log_loss": 1.0,
        "test_log_loss": interval(1.05, 1.04, 1.06),
        "delta_reference": gap,
        "delta_best": None if rank == 1 else interval(0.01, -0.01, 0.03, verdict="noise"),
        "in_confidence_set": True,
        "mcs_p": 0.4,
        "psr": 0.9,
        "dsr": 0.5,
        "trades": 12345,
        "sharpe_sets": NO_VALUE,
        "coverage": 0.9,
        "set_size": 2.5,
        "calibration": "none",
        "raw_log_loss": 1.06,
        "seeds": None,
        **changes,
    }


def board_of(*rows: Row) -> Leaderboard:
    return {"reference": "prior", "level": 0.95, "horizons": {"h5": list(rows)}}


def rows_of(board: Leaderboard, horizon: int = 5) -> list[Row]:
    return board["horizons"][f"h{horizon}"]


def test_a_leaderboard_is_read_as_it_was_written(tmp_path):
    seeds = {"runs": 3, "mean": 1.05, "sd": 0.001, "share": 0.2}
    rows = [row("a", sharpe=NO_VALUE, seeds=seeds), row("prior", 2, None, dsr=None)]
    board = {"reference": "prior", "level": 0.95, "horizons": {"h5": rows, "h20": rows}}
    write_json(tmp_path / "leaderboard.json", board)
    found = load_leaderboard(tmp_path)
    assert found == board
    assert list(found["horizons"]) == ["h5", "h20"]


# the stage


def test_leaderboard_holds_each_cells_own_figures(evaluated):
    board = compare(config(), evaluated)
    assert board == load_leaderboard(evaluated.report)
    for horizon in (5, 20):
        rows, prior = rows_of(board, horizon), read_json(evaluated.cell_metrics(f"prior_h{horizon}"))
        assert [row["val_log_loss"] for row in rows] == sorted(row["val_log_loss"] for row in rows)
        assert [row["score"] for row in rows] == [row["val_log_loss"] for row in rows]  # no cell has folds
        assert [row["rank"] for row in rows] == [1, 2, 3, 4]
        for row in rows:
            metrics = read_json(evaluated.cell_metrics(f"{row['model']}_h{horizon}"))
            assert row["val_log_loss"] == metrics["val"]["log_loss"]
            assert row["test_log_loss"]["value"] == pytest.approx(metrics["test"]["log_loss"], abs=1e-12)
            if row["model"] == "prior":
                assert row["delta_reference"] is None
            else:
                apart = metrics["test"]["log_loss"] - prior["test"]["log_loss"]
                assert row["delta_reference"]["value"] == pytest.approx(apart, abs=1e-12)
            for key in ("brier", "macro_f1", "mcc", "auc_ovr", "ece", "sharpe", "max_drawdown"):
                measured, expected = row[key], metrics["test"][key]
                assert measured["value"] == (None if expected is None else pytest.approx(expected, abs=1e-9))
            assert row["trades"] == metrics["test"]["trades"]
            assert row["raw_log_loss"] == metrics["raw"]["test"]["log_loss"]
    assert [row["model"] for row in rows_of(board)] == ["sharp", "blunt", "prior", "contrary"]


def test_verdicts_of_the_stubs(evaluated):
    rows = {row["model"]: row for row in rows_of(compare(config(), evaluated))}
    assert rows["sharp"]["delta_reference"]["verdict"] == "better"
    assert rows["contrary"]["delta_reference"]["verdict"] == "worse"
    assert rows["contrary"]["delta_best"]["verdict"] == "worse"
    assert rows["sharp"]["in_confidence_set"]
    assert not rows["contrary"]["in_confidence_set"]
    for found in rows.values():
        for delta in filter(None, (found["delta_reference"], found["delta_best"])):
            assert delta["low"] <= delta["value"] <= delta["high"]
            assert (delta["verdict"] == "noise") == (delta["low"] <= 0 <= delta["high"])


FOLDS = {"prior": 1.1, "sharp": 1.05, "blunt": 0.9, "contrary": 1.2}  # log-loss out of fold


def write_folds(paths, losses, windows=1000, horizon=5):
    """Out of fold `blunt` is the best, and there are more windows than in the selection subset."""
    for model, loss in losses.items():
        file = paths.cell_metrics(f"{model}_h{horizon}")
        found = {"log_loss": loss, "windows": windows, "by_fold": [loss, loss]}
        write_json(file, {**read_json(file), "folds": found})


def test_where_every_row_has_folds_they_rank_it_together_with_validation(paths):
    write_folds(paths, FOLDS)
    board = compare(config(), paths)
    assert [row["model"] for row in rows_of(board)] == ["blunt", "sharp", "prior", "contrary"]
    for row in rows_of(board):
        metrics = read_json(paths.cell_metrics(f"{row['model']}_h5"))
        ranked = metrics["windows"]["ranked"]
        expected = (1000 * FOLDS[row["model"]] + ranked * metrics["val"]["log_loss"]) / (1000 + ranked)
        assert row["score"] == pytest.approx(expected)
        assert row["val_log_loss"] == metrics["val"]["log_loss"]
    assert [row["score"] for row in rows_of(board, 20)] == [row["val_log_loss"] for row in rows_of(board, 20)]
    assert read_json(paths.metrics)["h5"]["best"] == "blunt"
    assert load_leaderboard(paths.report) == board


def test_with_one_row_without_folds_validation_ranks_the_horizon(paths):
    write_folds(paths, {model: loss for model, loss in FOLDS.items() if model != "contrary"})
    rows = rows_of(compare(config(), paths))
    assert [row["model"] for row in rows] == ["sharp", "blunt", "prior", "contrary"]
    assert [row["score"] for row in rows] == [row["val_log_loss"] for row in rows]


def add_row(paths, source, run, rng):
    """A row like another one, with slightly other predictions of test."""
    shutil.copytree(source, run)
    jitter(run / "predictions/test_predictions.parquet", 0.3, rng)


def test_the_rank_correlation_is_over_the_models_without_prior_and_ensemble(paths):
    rng = np.random.default_rng(0)
    more = ["calm", "keen"]
    for model in more:
        add_row(paths, paths.run("blunt_h5"), paths.run(f"{model}_h5"), rng)
        shutil.copy(paths.spec("blunt_h5"), paths.spec(f"{model}_h5"))
    add_row(paths, paths.run("sharp_h5"), paths.ensemble(5) / "ensemble", rng)
    losses = FOLDS | {"calm": 1.0, "keen": 1.3}
    write_folds(paths, losses)
    metrics = read_json(paths.cell_metrics("sharp_h5"))
    write_json(paths.ensemble(5) / "ensemble/metrics/metrics.json", metrics)
    cells = [{"model": model, "horizon": 5} for model in (*MODELS, *more)]
    board = compare(config(cells=cells), paths)
    rows = [row for row in rows_of(board) if row["model"] not in ("prior", "ensemble")]
    assert len(rows_of(board)) == 7
    found = read_json(paths.report / "significance.json")["h5"]["rank_correlation"]
    tests = [row["test_log_loss"]["value"] for row in rows]
    for name, known in (("score", "score"), ("val", "val_log_loss")):
        expected = spearmanr([row[known] for row in rows], tests).statistic
        assert found[name]["value"] == pytest.approx(expected)
        assert -1 <= found[name]["low"] <= found[name]["value"] <= found[name]["high"] <= 1
    assert found["score"]["value"] != found["val"]["value"]


def test_fewer_than_four_models_have_no_rank_correlation(evaluated):
    compare(config(), evaluated)
    for found in read_json(evaluated.report / "significance.json").values():
        assert found["rank_correlation"] == {"score": None, "val": None}
    compare(config(cells=[{"model": "prior", "horizon": 5}]), evaluated)
    assert read_json(evaluated.report / "significance.json")["h5"]["rank_correlation"] == {"score": None, "val": None}


def test_equal_losses_are_ranked_by_name(paths):
    shutil.rmtree(paths.run("contrary_h5"))
    shutil.copytree(paths.run("sharp_h5"), paths.run("contrary_h5"))
    rows = rows_of(compare(config(), paths))
    assert [row["model"] for row in rows[:2]] == ["contrary", "sharp"]
    assert rows[1]["delta_best"] == interval(0.0, 0.0, 0.0, verdict="noise")
    assert rows[0]["mcs_p"] == rows[1]["mcs_p"]


def test_every_metric_has_its_interval_in_a_file(evaluated):
    compare(config(), evaluated)
    content = read_json(evaluated.report / "intervals.json")
    assert set(content) == {"h5", "h20"}
    for horizon, models in content.items():
        for model, found in models.items():
            metrics = read_json(evaluated.cell_metrics(f"{model}_{horizon}"))["test"]
            assert set(found["metrics"]) == set(metrics)
            assert (found["deltas"] is None) == (model == "prior")
            for rule, traded in read_json(evaluated.cell_metrics(f"{model}_{horizon}"))["abstention"].items():
                shown = {name: interval["value"] for name, interval in found["rules"][rule].items()}
                assert shown == {k: v if v is None else pytest.approx(v, abs=1e-9) for k, v in traded["test"].items()}
            for name, value in metrics.items():
                interval = found["metrics"][name]
                assert interval["value"] == (None if value is None else pytest.approx(value, abs=1e-9)), name


def test_significance_has_every_pair_once(evaluated):
    compare(config(), evaluated)
    content = read_json(evaluated.report / "significance.json")["h5"]
    pairs = [frozenset((pair["first"], pair["second"])) for pair in content["pairs"]]
    assert len(pairs) == len(set(pairs)) == 6
    assert set(content["mcs"]) == set(MODELS)
    assert 0 <= content["spa"]["lower"] <= content["spa"]["consistent"] <= content["spa"]["upper"] < 0.05
    assert content["times"] * 2 == content["windows"] == len(pd.read_parquet(evaluated.predictions("sharp_h5", "test")))


def test_the_label_end_offset_is_at_least_that_of_the_labels(paths, monkeypatch):
    """Labels made elsewhere may look further ahead than their horizon; only those that are known count."""
    seen = []

    def watch(first, second, label_end_offset):
        seen.append(label_end_offset)
        return diebold_mariano(first, second, label_end_offset)

    monkeypatch.setattr("barcast.comparison.horizon.diebold_mariano", watch)
    one_horizon = config(cells=[{"model": m, "horizon": 5} for m in MODELS])
    compare(one_horizon, paths)
    assert set(seen) == {5}
    file = paths.windows / "labels/test_h5.npy"
    labels = np.load(file)
    labels["label_end_offset"][np.flatnonzero(labels["known"])[7]] = 23
    labels["label_end_offset"][np.flatnonzero(~labels["known"])[0]] = 99
    np.save(file, labels)
    seen.clear()
    compare(one_horizon, paths)
    assert set(seen) == {23}
    file.unlink()
    with pytest.raises(DataError, match=r"labels/test_h5.npy: no such window file; run `dvc repro window` first"):
        compare(one_horizon, paths)


def keep_times(paths, kept, **changes):
    for model in MODELS:
        file = paths.predictions(f"{model}_h5", "test")
        frame = pd.read_parquet(file)
        frame[frame["datetime"].isin(sorted(frame["datetime"].unique())[:kept])].assign(**changes).to_parquet(file)


def test_a_test_of_one_time_is_refused(paths):
    keep_times(paths, 1)
    with pytest.raises(DataError, match="expected 11 times or more to resample, got 1"):
        compare(config(cells=[{"model": m, "horizon": 5} for m in MODELS]), paths)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_constant_difference_of_losses_is_noise(paths):
    for model, sure in (("sharp", 0.8), ("blunt", 0.6)):
        file = paths.predictions(f"{model}_h5", "test")
        said = {"p_down": (1 - sure) / 2, "p_flat": sure, "p_up": (1 - sure) / 2, "prediction": 0, "label": 0}
        pd.read_parquet(file).assign(**said).to_parquet(file)
    rows = compare(config(reference="blunt", cells=[{"model": m, "horizon": 5} for m in ("sharp", "blunt")]), paths)
    found = {row["model"]: row for row in rows_of(rows)}
    assert found["sharp"]["delta_reference"] == interval(pytest.approx(np.log(0.6 / 0.8)), None, None, verdict="noise")
    assert found["sharp"]["mcs_p"] == found["blunt"]["mcs_p"] == 1.0
    content = read_json(paths.report / "significance.json")["h5"]
    assert (content["spa"], content["pairs"][0]["dm_p"]) == (None, 1.0)


def test_every_trial_counts(paths):
    compare(config(), paths)
    before = read_json(paths.report / "overfitting.json")
    assert before["trials"]["total"] == 8
    folder = paths.tune / "sharp_h5"
    folder.mkdir(parents=True)
    states = ["complete"] * 3 + ["pruned"] * 4 + ["failed"]
    ledger = pd.DataFrame({"state": states, "sharpe_per_bar": [0.01, 0.05, None] + [None] * 5})
    ledger.to_parquet(folder / "trials.parquet")
    compare(config(), paths)
    after = read_json(paths.report / "overfitting.json")
    counts = {key: after["trials"][key] for key in ("cells", "repeats", "tuning", "failed", "pruned", "total")}
    assert counts == {"cells": 8, "repeats": 0, "tuning": 8, "failed": 1, "pruned": 4, "total": 16}
    assert after["trials"]["with_sharpe"] == before["trials"]["with_sharpe"] + 2
    assert after["h5"]["cells"]["sharp"]["psr"] == before["h5"]["cells"]["sharp"]["psr"]
    ledger.drop(columns="state").to_parquet(folder / "trials.parquet")
    with pytest.raises(DataError, match=r"trials.parquet: no column 'state'; run `dvc repro tune`"):
        compare(config(), paths)


def jitter(file, sd, rng):
    frame = pd.read_parquet(file)
    p = frame[["p_down", "p_flat", "p_up"]].to_numpy() * np.exp(rng.normal(0, sd, (len(frame), 3)))
    frame[["p_down", "p_flat", "p_up"]] = p / p.sum(axis=1, keepdims=True)
    frame.to_parquet(file)


def test_repeats_with_other_seeds_are_part_of_the_verdicts(paths):
    alone = {row["model"]: row for row in rows_of(compare(config(), paths))}["sharp"]
    rng = np.random.default_rng(0)
    for entry in CONFIG["cells"]:
        cell = f"{entry['model']}_h{entry['horizon']}"
        for seed in (1, 2):
            for part in ("metrics", "predictions"):
                shutil.copytree(paths.run(cell) / part, paths.repeat(cell, seed) / part)
            if entry["model"] == "sharp":
                jitter(paths.repeat(cell, seed) / "predictions/test_predictions.parquet", 0.2 * seed, rng)
    rows = {row["model"]: row for row in rows_of(compare(config(seeds=[1, 2]), paths))}
    assert read_json(paths.report / "overfitting.json")["trials"]["repeats"] == 16
    assert rows["blunt"]["seeds"]["runs"] == 3
    assert (rows["blunt"]["seeds"]["sd"], rows["blunt"]["seeds"]["share"]) == pytest.approx((0.0, 0.0), abs=1e-12)
    seeds, gap = rows["sharp"]["seeds"], rows["sharp"]["delta_reference"]
    assert seeds["sd"] > 0
    assert 0 < seeds["share"] < 1
    assert gap["value"] - alone["delta_reference"]["value"] == pytest.approx(
        seeds["mean"] - alone["test_log_loss"]["value"]
    )
    assert gap["high"] - gap["value"] > alone["delta_reference"]["high"] - alone["delta_reference"]["value"]
    shutil.rmtree(paths.repeat("blunt_h20", 2))
    with pytest.raises(DataError, match=r"blunt_h20: .*s2/.* is missing; run `dvc repro repeat@blunt-20-2` first"):
        compare(config(seeds=[1, 2]), paths)


def test_metrics_file_is_short_enough_for_dvc_exp_show(evaluated):
    board = compare(config(), evaluated)
    content = read_json(evaluated.metrics)
    for horizon, rows in board["horizons"].items():
        expected = {
            "best": "sharp",
            "score": round(rows[0]["score"], 6),
            "test": round(rows[0]["test_log_loss"]["value"], 6),
        }
        assert content[horizon] == expected
    columns = [f"{horizon}.{key}" for horizon, values in content.items() for key in values]
    assert sum(len(column) + 3 for column in columns) < 80  # beside DVC's own 40


def test_same_inputs_same_bytes(paths):
    compare(config(), paths)
    first = outputs(paths)
    compare(config(), paths)
    assert outputs(paths) == first
    files = ["index.html", "intervals.json", "leaderboard.json", "leaderboard.md", "overfitting.json"]
    assert sorted(path.name for path in paths.report.iterdir()) == [*files, "plots", "significance.json"]
    assert str(paths.root) not in first["experiments/report/index.html"].decode()


def test_the_prior_is_the_reference_even_outside_the_matrix(paths):
    cells = [entry for entry in CONFIG["cells"] if entry["model"] != "prior"]
    with_prior, without = compare(config(), paths), compare(config(cells=cells), paths)
    expected = {row["model"]: row["delta_reference"] for row in rows_of(with_prior) if row["model"] != "prior"}
    found = {row["model"]: row["delta_reference"] for row in rows_of(without)}
    assert list(found) == list(expected)
    for model, delta in found.items():
        assert delta["value"] == pytest.approx(expected[model]["value"], abs=1e-12)
        assert delta["verdict"] == expected[model]["verdict"]


def test_any_model_can_be_the_reference(paths):
    board = compare(config(reference="blunt"), paths)
    assert [row["model"] for row in rows_of(board, 20) if row["delta_reference"] is None] == ["blunt"]
    assert "Δ blunt" in (paths.report / "leaderboard.md").read_text()


def test_a_single_cell_is_compared_with_the_prior_only(paths):
    board = compare(config(cells=[{"model": "sharp", "horizon": 5}]), paths)
    only = rows_of(board)[0]
    assert (only["delta_reference"]["verdict"], only["delta_best"], only["mcs_p"]) == ("better", None, 1.0)
    assert read_json(paths.report / "significance.json")["h5"]["pairs"] == []
    assert read_json(paths.report / "overfitting.json")["h5"]["pbo"] is None


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("metrics/metrics.json", "dvc repro evaluate@sharp-5"),
        ("predictions/test_predictions.parquet", "dvc repro evaluate@sharp-5"),
        ("plots/test_equity.csv", "dvc repro evaluate@sharp-5"),
        ("checkpoints/model/model.json", "dvc repro train@sharp-5"),
    ],
)
def test_a_missing_file_names_the_cell_and_the_command(paths, name, command):
    compare(config(), paths)
    before = outputs(paths)
    (paths.run("sharp_h5") / name).unlink()
    with pytest.raises(DataError, match=rf"^sharp_h5: .*{re.escape(name)} is missing; run `{command}` first$"):
        compare(config(), paths)
    assert outputs(paths) == before  # the last good report stays


def test_cells_scored_on_other_windows_are_refused(paths):
    file = paths.predictions("blunt_h20", "test")
    frame = pd.read_parquet(file)
    frame.iloc[1:].to_parquet(file, index=False)
    with pytest.raises(DataError, match=r"blunt_h20: .* other windows or labels than prior_h20's; run `dvc repro`"):
        compare(config(), paths)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reference": "lstm"}, "expected a reference among the models; lstm_h(5|20) is no cell"),
        ({"cells": CONFIG["cells"] * 2}, "expected each cell once; prior_h5 is there twice"),
        ({"cells": []}, "config.cells"),
        ({"cells": [{"model": "prior"}]}, "key 'config.cells.0.horizon' is missing"),
        ({"label_end_offset": {"h5": 5}}, "expected label_end_offset of every horizon; h20 is missing"),
        ({"refrence": "prior"}, "unknown key 'config.refrence'; did you mean 'reference'"),
    ],
)
def test_config_errors(changes, message):
    with pytest.raises(ConfigError, match=message):
        config(**changes)


def test_main_reads_its_spec(paths, monkeypatch):
    monkeypatch.chdir(paths.root)
    paths.specs.mkdir(parents=True, exist_ok=True)
    paths.spec("compare").write_text(dump_yaml(load_yaml(paths.spec("compare")) | {"config": CONFIG}))
    stage.main()
    assert paths.metrics.is_file()


def test_no_leaderboard_yet(tmp_path):
    with pytest.raises(DataError, match=r"leaderboard.json: no leaderboard yet; run `dvc repro` first"):
        load_leaderboard(tmp_path)


def test_the_computing_modules_know_no_files_settings_or_views():
    modules = Fingerprinter().fingerprint("barcast.comparison.results").code
    known = r"barcast\.(config|paths|files|yaml_io|params|stages|tracking|report|cache|cli|data|models)\b"
    assert not [name for name in modules if re.match(known, name)]


# renderings


def test_markdown_has_a_table_for_each_horizon(evaluated):
    board = compare(config(), evaluated)
    text = render_markdown(board)
    assert text == (evaluated.report / "leaderboard.md").read_text()
    tables = re.findall(r"## (\d+) bars ahead\n\n((?:\|.*\n)+)", text)
    assert [heading for heading, _ in tables] == ["5", "20"]
    for (_, table), rows in zip(tables, board["horizons"].values(), strict=True):
        lines = table.splitlines()
        assert {line.count("|") for line in lines} == {24}
        assert [line.split("|")[2].strip() for line in lines[2:]] == [row["model"] for row in rows]


def test_undefined_values_and_signs_are_shown_as_such():
    flat = row("flat", sharpe=NO_VALUE, mcc=interval(0.0, -0.1, 0.1), in_confidence_set=False)
    last = render_markdown(board_of(flat)).splitlines()[-1]
    losses = ["1.0200", "1.0500 ±0.0100", "−0.0500 ±0.0100", "better"]
    shown = ["1", "flat", *losses, "", "–", "0.000", "0.500", "–", "0.50"]
    more = ["1.0000", "0.500", "0.500", "50.0%", "12,345", "–", "0.5 ±0.1", "–", "0.900", "2.50", "none"]
    assert last == "| " + " | ".join(shown + more) + " |"


def test_seeds_are_shown_with_their_spread():
    assert "| 1.0512 ±0.0021 (3) |" in render_markdown(
        board_of(row("a", seeds={"runs": 3, "mean": 1.0512, "sd": 0.0021}))
    )


def test_an_interval_cut_off_at_a_bound_shows_its_longer_side():
    text = render_markdown(board_of(row("a", sharpe=interval(-1.5, -3.5, -0.5))))
    assert "−1.5 ±2.0" in text


def test_terminal_tables_fit_120_columns():
    worst = {"sharpe": interval(-123.4, -150.0, -100.0), "test_log_loss": interval(12.3456, 10.0, 14.0)}
    rows = [row("transformer", rank, **worst) for rank in (1, 2, 10)]
    console = Console(width=120, record=True, file=io.StringIO())
    render_terminal({"reference": "prior", "level": 0.95, "horizons": {"h5": rows, "h20": rows}}, console)
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 120
    assert "…" not in text
    for shown in ("5 bars ahead", "20 bars ahead", "transformer", "−123.4 ±26.6", "better", "noise", "●", "DSR", "95%"):
        assert shown in text


def test_verdicts_have_a_colour_in_the_terminal():
    console = Console(width=120, force_terminal=True, color_system="standard", file=io.StringIO())
    render_terminal(board_of(row("a"), row("b", 2, delta=0.0)), console)
    text = console.file.getvalue()
    assert re.search(r"\x1b\[[\d;]*32m *better", text)
    assert re.search(r"\x1b\[[\d;]*2m *noise", text)


@pytest.mark.parametrize(("width", "last"), [(120, "DSR"), (80, "#1")])
def test_a_narrow_terminal_loses_the_last_columns_and_no_letter(width, last):
    console = Console(width=width, file=io.StringIO())
    render_terminal(board_of(row("transformer"), row("prior", 2, None)), console)
    header = next(line for line in console.file.getvalue().splitlines() if "model" in line)
    assert "transformer" in console.file.getvalue()
    assert "…" not in console.file.getvalue()
    assert header.split()[-1] == last


@pytest.mark.parametrize(
    "content", ['{"reference": "prior", "level": 0.9, "horizons": {"h5": [{"rank": 1}]}}', "{}", "{"]
)
def test_a_leaderboard_of_another_version_names_the_command(tmp_path, content):
    (tmp_path / "leaderboard.json").write_text(content)
    with pytest.raises(DataError, match="written by another version of barcast; run `dvc repro compare`"):
        load_leaderboard(tmp_path)


def test_the_page_shows_every_cell(evaluated):
    board = compare(config(), evaluated)
    page = (evaluated.report / "index.html").read_text()
    bodies = re.findall(r'<table class="board ranked">.*?<tbody>(.*?)</tbody>', page, re.DOTALL)
    for body, rows in zip(bodies, board["horizons"].values(), strict=True):
        assert re.findall(r'<th scope="row" class="model" data-sort="(\w+)"', body) == [row["model"] for row in rows]
    assert page.count('class="confusion"') == 8
    assert len(re.findall(r"Validation log-loss is lowest at step \d+ of \d+", page)) == 12  # label and words of each


def test_the_page_counts_what_was_predicted(evaluated):
    compare(config(), evaluated)
    page = (evaluated.report / "index.html").read_text()
    frame = pd.read_parquet(evaluated.predictions("sharp_h5", "test"))
    expected = pd.crosstab(frame["label"], frame["prediction"]).reindex(
        index=[-1, 0, 1], columns=[-1, 0, 1], fill_value=0
    )
    own = page.split('id="sharp_h5"')[1].split('class="confusion"')[1]
    counts = re.findall(r"<small>(\d+)</small>", own.split("</table>")[0])
    assert [int(count) for count in counts] == expected.to_numpy().ravel().tolist()
