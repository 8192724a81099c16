"""Raw bars in, predictions out: in one call, streamed from a file, and over HTTP; and what is refused."""

import io
import json
import re
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest

import _served
from _server import serve
from barcast import cli
from barcast.data.bars import load_bars
from barcast.data.frames import OHLCV
from barcast.errors import ConfigError, DataError, ModelError
from barcast.params import load_params
from barcast.paths import Paths
from barcast.serving.bundle import write_bundle
from barcast.serving.candidate import Candidate
from barcast.serving.predictor import PREDICTION_COLUMNS, Predictor
from barcast.serving.promotion import promote
from barcast.serving.stream_predictor import predict_file

NEEDED, EXACT, SEQ_LEN = 212, 1512, 12
NETWORKS = {"gru"}


@pytest.fixture(scope="module")
def predictors(trained, tmp_path_factory):
    """Every model of the tiny repository, loaded from its bundle."""
    loaded, params = {}, load_params(trained.params)
    for model in _served.MODELS:
        folder = tmp_path_factory.mktemp("bundles") / model
        candidate = Candidate(trained, params, model, 5)
        metrics = trained.cell_metrics(candidate.cell).parent
        write_bundle(folder, trained.checkpoint(candidate.cell), metrics, candidate.serving_config())
        loaded[model] = Predictor(folder)
    return loaded


@pytest.fixture(scope="module")
def bars(trained):
    return load_bars(trained.root / "data/raw/bars.parquet", _served.SYMBOLS)


@pytest.fixture(scope="module")
def predictor(predictors):
    return predictors["lightgbm"]


def of(bars, symbol):
    return bars[bars["symbol"] == symbol].reset_index(drop=True)


def same(a, b, model="a booster"):
    """Bit for bit; of a network, whose sums depend on how many windows are asked together, within 1e-6."""
    close = {"check_exact": False, "rtol": 0, "atol": 1e-6} if model in NETWORKS else {"check_exact": True}
    pd.testing.assert_frame_equal(a, b, check_freq=False, **close)


# --- the same predictions as in training -----------------------------------------------------------


@pytest.mark.parametrize("model", _served.MODELS)
@pytest.mark.parametrize("split", ["val", "test"])
def test_serving_the_bars_of_a_split_gives_its_predictions_file_bit_for_bit(trained, predictors, bars, model, split):
    stored = pd.read_parquet(trained.predictions(f"{model}_h5", split))
    predicted = predictors[model].predict(bars)
    joined = stored[["datetime", "symbol"]].merge(predicted, on=["datetime", "symbol"], how="left")
    same(joined, stored[list(PREDICTION_COLUMNS)], model)


def test_every_bar_with_its_window_is_predicted_in_the_order_of_the_request(predictor, bars):
    predicted = predictor.predict(bars)
    assert list(predicted.columns) == list(PREDICTION_COLUMNS)
    per_symbol = len(of(bars, "AAA")) - NEEDED + 1
    assert predicted["symbol"].value_counts().to_dict() == {"AAA": per_symbol, "BBB": per_symbol}
    mixed = bars.sort_values(["datetime", "symbol"], ignore_index=True)
    mixed_predicted = predictor.predict(mixed)
    assert mixed_predicted["datetime"].is_monotonic_increasing
    same(mixed_predicted.sort_values(["symbol", "datetime"], ignore_index=True), predicted)
    shuffled_columns = bars[["volume", "close", "symbol", "low", "datetime", "high", "open"]].assign(note="x")
    same(predictor.predict(shuffled_columns), predicted)


@pytest.mark.parametrize("model", _served.MODELS)
def test_the_predictions_of_a_symbol_do_not_depend_on_other_symbols(predictors, bars, model):
    both, alone = predictors[model].predict(bars), predictors[model].predict(of(bars, "BBB"))
    same(both[both["symbol"] == "BBB"].reset_index(drop=True), alone, model)


@pytest.mark.parametrize("model", _served.MODELS)
def test_a_short_history_gives_the_same_bits_once_it_is_exact(predictors, bars, model):
    one = of(bars, "AAA")
    whole = predictors[model].predict(one).tail(1).reset_index(drop=True)
    same(predictors[model].predict(one.tail(EXACT), last_only=True), whole, model)
    least = predictors[model].predict(one.tail(NEEDED))
    assert len(least) == 1
    np.testing.assert_allclose(least[["p_down", "p_flat", "p_up"]], whole[["p_down", "p_flat", "p_up"]], atol=0.2)


def test_the_last_bar_alone_is_the_last_of_all(predictor, bars):
    predicted = predictor.predict(bars)
    last = predicted.groupby("symbol").tail(1).reset_index(drop=True)
    same(predictor.predict(bars, last_only=True), last)
    assert predictor.config.needed_bars == NEEDED
    assert predictor.config.exact_bars == EXACT


@pytest.mark.parametrize(
    "times",
    [
        lambda t: t.dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
        lambda t: t.dt.strftime("%Y-%m-%d %H:%M:%S"),
        lambda t: t.dt.tz_convert("Asia/Tokyo").map(pd.Timestamp.isoformat),
        lambda t: t.dt.tz_convert("Asia/Tokyo").dt.as_unit("s"),
        lambda t: t.dt.tz_localize(None),
    ],
    ids=["Z", "no zone", "other zone", "timestamps of another zone", "timestamps without zone"],
)
def test_times_in_any_form_mean_the_same(predictor, bars, times):
    one = of(bars, "AAA").tail(NEEDED + 3)
    same(predictor.predict(one.assign(datetime=times(one["datetime"]))), predictor.predict(one))


def test_gaps_split_windows_as_in_training(predictor, bars):
    one = of(bars, "AAA").tail(NEEDED + 60).reset_index(drop=True)
    holed = one.drop(index=range(NEEDED + 20, NEEDED + 30))
    predicted = predictor.predict(holed)
    after = holed["datetime"][NEEDED + 30]
    assert not predicted["datetime"].between(after, after + pd.Timedelta("330min"), "left").any()
    assert (predicted["datetime"] == after + (SEQ_LEN - 1) * pd.Timedelta("30min")).any()
    assert len(predicted) == len(holed) - NEEDED + 1 - (SEQ_LEN - 1)


# --- refusals --------------------------------------------------------------------------------------


def spoil(bars, row, column, value):
    spoiled = bars.copy()
    spoiled.loc[row, column] = value
    return spoiled


REFUSALS = {
    "too few": (
        lambda b: b.tail(NEEDED - 1),
        "request: symbol 'AAA' has 211 bars, at least 212 are needed (200 for the features' warm-up and 12 for one "
        "window); with 1512 predictions are the same as with any longer history",
    ),
    "unknown symbol": (
        lambda b: b.assign(symbol="aab"),
        "request: symbol 'aab' is not one that the model was trained on; did you mean 'AAA'?",
    ),
    "far symbol": (lambda b: b.assign(symbol="DOGE"), "is not one that the model was trained on; leave its rows out"),
    "NaN": (
        lambda b: spoil(b, 7, "close", np.nan),
        "request: AAA, row 7 (2015-02-22 01:30:00+00:00): close = nan is not a finite number; fix or drop the row",
    ),
    "infinity": (lambda b: spoil(b, 7, "volume", np.inf), "row 7 (2015-02-22 01:30:00+00:00): volume = inf is not a"),
    "price of 0": (lambda b: spoil(b, 3, "low", 0.0), "row 3 (2015-02-21 23:30:00+00:00): low = 0.0 is not above 0"),
    "high below close": (lambda b: spoil(b, 3, "high", 1.0), "row 3 (2015-02-21 23:30:00+00:00): high = 1.0 is below"),
    "unsorted": (
        lambda b: b.iloc[::-1],
        "request: AAA, row 1 (2015-02-28 03:00:00+00:00): the time is before that of the symbol's row above; sort",
    ),
    "twice": (
        lambda b: pd.concat([b, b.tail(1)], ignore_index=True),
        "row 300 (2015-02-28 03:30:00+00:00): the symbol has two rows with this time; drop one of them",
    ),
    "no time": (lambda b: spoil(b, 5, "datetime", pd.NaT), "row 5: the time is missing; give every row its time"),
    "not a time": (lambda b: b.assign(datetime="now"), "datetime = 'now' can't be read as a UTC time; write it like"),
    "no symbol": (lambda b: spoil(b, 5, "symbol", None), "row 5 (2015-02-22 00:30:00+00:00): the symbol is missing"),
    "wrong column": (
        lambda b: b.rename(columns={"close": "Close"}),
        "request: column 'close' is missing; rename 'Close' to 'close'",
    ),
    "text for a number": (lambda b: b.assign(open="cheap"), "open = 'cheap' has type large_string, not number"),
    "mixed types": (
        lambda b: b.assign(open=[1.0, "x"] * (len(b) // 2)),
        "request: column 'open' has values of different types",
    ),
    "no rows": (lambda b: b.head(0), "request: no bars; give a file with at least one row"),
    "another bar length": (
        lambda b: b.assign(datetime=pd.date_range("2020", periods=len(b), freq="1h", tz="UTC")),
        "symbol 'AAA' has a bar every 1 h, the model was trained on one every 30 min; use bars of that length",
    ),
    "no window without a gap": (
        lambda b: b.assign(datetime=b["datetime"] + pd.to_timedelta((b.index >= len(b) - 5) * 5, unit="h")).tail(
            NEEDED + 4
        ),
        "symbol 'AAA': fewer than the 12 bars of a window follow the gap before 2015-02-28T06:30:00+00:00 (the longest "
        "gap allowed in a window is 2h); add the missing bars, or wait for 12 bars after it",
    ),
}


@pytest.fixture(scope="module")
def request_bars(bars):
    return of(bars, "AAA").tail(300).reset_index(drop=True)


@pytest.mark.parametrize("case", REFUSALS)
def test_what_is_wrong_with_bars_is_said(predictor, request_bars, case):
    change, message = REFUSALS[case]
    with pytest.raises(DataError, match=re.escape(message)):
        predictor.predict(change(request_bars))


def test_a_damaged_bundle_is_refused(predictors, trained, tmp_path):
    candidate = Candidate(trained, load_params(trained.params), "prior", 5)
    metrics = trained.cell_metrics(candidate.cell).parent
    write_bundle(tmp_path / "model", trained.checkpoint(candidate.cell), metrics, candidate.serving_config())
    file = tmp_path / "model/serving.json"
    file.write_text(file.read_text()[:100])
    with pytest.raises(DataError, match=r"serving.json: no valid JSON \(.*\); restore it with `dvc checkout -f`"):
        Predictor(tmp_path / "model")


@pytest.mark.parametrize(
    ("file", "command"), [("splits/scaled/scaler.json", "prepare"), ("windows/train/index.parquet", "window")]
)
def test_a_bundle_needs_the_scaler_and_the_windows(trained, tmp_path, file, command):
    shutil.copytree(trained.root, tmp_path / "r", symlinks=True, ignore=shutil.ignore_patterns(".git", ".dvc", "src"))
    paths = Paths(tmp_path / "r")
    (paths.root / "data" / file).unlink()
    with pytest.raises(DataError, match=rf"{file}: no such file; run `dvc repro {command}` first"):
        Candidate(paths, load_params(paths.params), "prior", 5).serving_config()


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"no served model here \(serving.json is missing\); run `barcast promote`"):
        Predictor(tmp_path)


def test_a_bundle_whose_parts_do_not_belong_together_is_refused(trained, tmp_path):
    candidate = Candidate(trained, load_params(trained.params), "prior", 5)
    config = candidate.serving_config()
    fewer = config.model_copy(update={"features": config.features.model_copy(update={"calendar": False})})
    metrics = trained.cell_metrics(candidate.cell).parent
    write_bundle(tmp_path / "model", trained.checkpoint(candidate.cell), metrics, fewer)
    with pytest.raises(ModelError, match=r"the columns of model, scaler and features differ; promote the model again"):
        Predictor(tmp_path / "model")


# --- files larger than memory ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def few(bars):
    """600 bars of one symbol, 500 of the other: more than the tails that a small chunk carries over."""
    return pd.concat([of(bars, "AAA").tail(600), of(bars, "BBB").tail(500)], ignore_index=True)


LAYOUTS = {
    "by symbol": lambda b: b,
    "by time": lambda b: b.sort_values(["datetime", "symbol"], ignore_index=True),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("suffix", "chunk"), [(".parquet", 97), (".parquet", 10_000), (".csv", 251)])
def test_a_streamed_file_gives_the_predictions_of_one_call_bit_for_bit(predictor, few, tmp_path, layout, suffix, chunk):
    table = LAYOUTS[layout](few)
    source, out = tmp_path / f"bars{suffix}", tmp_path / "predictions.parquet"
    if suffix == ".csv":
        table.to_csv(source, index=False)
    else:
        table.to_parquet(source, index=False, row_group_size=128)
    counts = predict_file(predictor, source, out, chunk)
    expected = predictor.predict(table)
    same(pd.read_parquet(out), expected)
    assert counts == {"AAA": 600 - NEEDED + 1, "BBB": 500 - NEEDED + 1}


def test_a_long_file_in_small_chunks_is_the_same_bits_too(predictor, bars, tmp_path):
    """Longer than the history that a chunk carries over."""
    one = of(bars, "AAA")
    assert len(one) > EXACT + 600
    one.to_parquet(tmp_path / "bars.parquet", index=False)
    predict_file(predictor, tmp_path / "bars.parquet", tmp_path / "predictions.parquet", 300)
    same(pd.read_parquet(tmp_path / "predictions.parquet"), predictor.predict(one))


def test_a_folder_of_symbols_and_predictions_as_csv(predictor, few, tmp_path):
    folder = tmp_path / "bars"
    folder.mkdir()
    for symbol in ("AAA", "BBB"):
        of(few, symbol).drop(columns="symbol").to_csv(folder / f"{symbol}.csv", index=False)
    predict_file(predictor, folder, tmp_path / "predictions.csv", 200)
    read = pd.read_csv(tmp_path / "predictions.csv", parse_dates=["datetime"])
    read["datetime"] = read["datetime"].dt.as_unit("ns")
    pd.testing.assert_frame_equal(read, predictor.predict(few), check_exact=True, check_dtype=False)


def test_a_csv_whose_numbers_need_a_second_look_is_read_as_training_reads_it(predictor, few, tmp_path):
    text = few.to_csv(index=False).splitlines()
    cells = text[700].split(",")
    text[700] = ",".join([*cells[:2], f" {cells[2]}", *cells[3:]])  # Arrow takes no blank before a number
    (tmp_path / "bars.csv").write_text("\n".join(text))
    predict_file(predictor, tmp_path / "bars.csv", tmp_path / "predictions.parquet", 90)
    same(pd.read_parquet(tmp_path / "predictions.parquet"), predictor.predict(few))


STREAM_REFUSALS = {
    "NaN": (lambda b: spoil(b, 450, "close", np.nan), r"bars.parquet: AAA, row 450 \(2015-.*close = nan is not a"),
    "order across chunks": (
        lambda b: pd.concat([b[300:600], b[:300], b[600:]], ignore_index=True),
        r"bars.parquet: AAA, row 300 \(2015-.*: the time is before that of the symbol's row above",
    ),
    "twice across chunks": (
        lambda b: pd.concat([b[:100], b[99:]], ignore_index=True),
        r"bars.parquet: AAA, row 100 \(2015-.*: the symbol has two rows with this time",
    ),
    "too few": (lambda b: b[:800], r"bars.parquet: symbol 'BBB' has 200 bars, at least 212 are needed"),
    "unknown symbol": (
        lambda b: b.assign(symbol=b["symbol"].replace("BBB", "BBC")),
        r"bars.parquet: symbol 'BBC' is not one that the model was trained on; did you mean 'BBB'\?",
    ),
    "no symbol": (lambda b: spoil(b, 733, "symbol", None), r"bars.parquet: row 733: the symbol is missing"),
    "another bar length": (
        lambda b: b.assign(datetime=pd.date_range("2020", periods=len(b), freq="15min", tz="UTC")),
        r"symbol 'AAA' has a bar every 15 min, the model was trained on one every 30 min",
    ),
    "gaps": (
        lambda b: b[:250].assign(datetime=b["datetime"][:250] + pd.to_timedelta(b.index[:250] // 10 * 3, unit="h")),
        r"bars.parquet: symbol 'AAA': fewer than the 12 bars of a window follow the gap before",
    ),
    "no rows": (lambda b: b[:0], r"bars.parquet: no bars; give a file with at least one row"),
}


@pytest.mark.parametrize("case", STREAM_REFUSALS)
def test_a_file_is_refused_with_its_row_and_nothing_is_left_behind(predictor, few, tmp_path, case):
    change, message = STREAM_REFUSALS[case]
    change(few).to_parquet(tmp_path / "bars.parquet", index=False)
    with pytest.raises(DataError, match=message):
        predict_file(predictor, tmp_path / "bars.parquet", tmp_path / "predictions.parquet", 100)
    assert [path.name for path in tmp_path.iterdir()] == ["bars.parquet"]


def test_predictions_never_replace_or_join_the_bars(predictor, few, tmp_path):
    source, folder = tmp_path / "bars.parquet", tmp_path / "bars"
    few.to_parquet(source, index=False)
    (tmp_path / "link.parquet").symlink_to(source)
    (tmp_path / "same.parquet").hardlink_to(source)
    (folder / "deep").mkdir(parents=True)
    of(few, "AAA").to_parquet(folder / "a.parquet", index=False)
    before = source.read_bytes()
    for name in ("bars.parquet", "link.parquet", "same.parquet", "bars/../bars.parquet"):
        with pytest.raises(ConfigError, match=r"this is the file of bars; write the predictions to another file"):
            predict_file(predictor, source, tmp_path / name, 100)
    for name in ("b.parquet", "deep/b.parquet"):
        with pytest.raises(ConfigError, match=r"is in the folder of bars, .*; write the predictions to another"):
            predict_file(predictor, folder, folder / name, 100)
    with pytest.raises(ConfigError, match=r"x.parquet: there is no folder .*/none; create it first"):
        predict_file(predictor, source, tmp_path / "none/x.parquet", 100)
    assert source.read_bytes() == before
    assert not (tmp_path / "none").exists()
    assert [path.name for path in sorted(folder.rglob("*"))] == ["a.parquet", "deep"]


def test_other_refusals_of_files(predictor, few, tmp_path):
    with pytest.raises(ConfigError, match=r"x.txt: predictions are written as .parquet or .csv; use one of these"):
        predict_file(predictor, tmp_path / "bars.parquet", tmp_path / "x.txt", 100)
    with pytest.raises(DataError, match=r"bars.parquet: no such file or folder; give a file of bars, or a folder"):
        predict_file(predictor, tmp_path / "bars.parquet", tmp_path / "x.csv", 100)
    (tmp_path / "folder").mkdir()
    for name in ("a", "b"):
        of(few, "AAA").to_parquet(tmp_path / f"folder/{name}.parquet", index=False)
    with pytest.raises(DataError, match=r"folder: symbol 'AAA' is in a.parquet and b.parquet; keep one"):
        predict_file(predictor, tmp_path / "folder", tmp_path / "x.csv", 1000)
    (tmp_path / "bars.csv").write_text(few.to_csv(index=False).replace("2015-02-28 00:00", "soon", 1))
    with pytest.raises(DataError, match=r"bars.csv: AAA, row \d+: datetime = 'soon:00\+00:00' can't be read as a UTC"):
        predict_file(predictor, tmp_path / "bars.csv", tmp_path / "x.csv", 100)


# --- from the shell, and over HTTP -----------------------------------------------------------------


@pytest.fixture(scope="module")
def repository(trained, tmp_path_factory):
    """A copy in which XGBoost is champion."""
    root = tmp_path_factory.mktemp("serving") / "repository"
    shutil.copytree(trained.root, root, symlinks=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        promote(Paths(root), 5, "xgboost", False, lambda line: None)
    return Paths(root)


def test_predict_writes_a_file_from_the_shell(repository, predictors, few, tmp_path, monkeypatch, capsys):
    few.to_parquet(tmp_path / "bars.parquet", index=False)
    monkeypatch.chdir(repository.root)
    out = tmp_path / "predictions.parquet"
    monkeypatch.setattr("sys.argv", ["barcast", "predict", str(tmp_path / "bars.parquet"), "--out", str(out)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code
    assert capsys.readouterr().out == f"AAA: 389 predictions\nBBB: 289 predictions\nxgboost_h5: {out}\n"
    same(pd.read_parquet(out), predictors["xgboost"].predict(few))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "error: --horizon: champions: none; choose one, or make one with `barcast promote --horizon 5`"),
        (["--horizon", "20"], "h20/model: no served model here (serving.json is missing); run `barcast promote` first"),
    ],
)
def test_predict_without_a_champion_says_what_to_do(tmp_path, monkeypatch, capsys, arguments, message):
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["barcast", "predict", "bars.parquet", "--out", "x.csv", *arguments])
    with pytest.raises(SystemExit):
        cli.main()
    assert message in capsys.readouterr().err


@pytest.fixture(scope="module")
def server(repository, tmp_path_factory):
    with serve(repository.root, tmp_path_factory.mktemp("server") / "log") as running:
        yield running


def test_the_server_gives_the_right_predictions(server, predictors, request_bars):
    written = request_bars[list(OHLCV)].to_json(double_precision=15)
    rounded = pd.read_json(io.StringIO(written)).astype("float64")
    asked = request_bars.assign(**rounded)  # what JSON leaves of a number
    status, predicted = server.ask(asked)
    assert status == 200
    expected = predictors["xgboost"].predict(asked)
    predicted["datetime"] = pd.to_datetime(predicted["datetime"]).dt.as_unit("ns")
    pd.testing.assert_frame_equal(predicted, expected, check_exact=True, check_dtype=False)
    status, last = server.ask(asked, last_only=True)
    assert status == 200
    assert last["p_up"].tolist() == expected["p_up"].tail(1).tolist()


def test_callers_at_the_same_time_get_their_own_predictions(server, request_bars):
    asked = [request_bars.tail(NEEDED + extra) for extra in range(12)]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(server.ask, asked))
    for extra, (status, predicted) in enumerate(found):
        assert (status, len(predicted)) == (200, extra + 1)
        assert predicted["p_up"].iloc[-1] == server.ask(asked[extra])[1]["p_up"].iloc[-1]


HTTP_REFUSALS = ["too few", "unknown symbol", "NaN", "unsorted", "twice", "not a time", "no rows", "another bar length"]


@pytest.mark.parametrize("case", HTTP_REFUSALS)
def test_the_server_refuses_with_the_reason(server, request_bars, case):
    change, message = REFUSALS[case]
    status, reason = server.ask(change(request_bars))
    assert status == 400
    assert message in reason


def test_the_server_refuses_wrong_columns_and_what_is_no_table(server, request_bars):
    status, reason = server.ask(request_bars.drop(columns="close"))
    assert status == 400
    assert "Model is missing inputs ['close']" in reason
    status, reason = server.ask(request_bars.assign(close="cheap"))
    assert status == 400
    assert "could not convert string to float: 'cheap'" in reason
    for body in (b"[]", b"{", b'{"bars": []}'):
        status, response = server.request("POST", "/invocations", body)
        assert status == 400
        assert b"nput" in response


def test_a_body_of_50_mb_is_refused_and_the_server_goes_on(server, request_bars):
    split = json.loads(request_bars.to_json(orient="split", index=False, date_format="iso"))
    rows = json.dumps(split["data"])[1:-1]
    columns = json.dumps(split["columns"])
    many = ", ".join([rows] * (50 * 2**20 // len(rows) + 1))
    body = f'{{"dataframe_split": {{"columns": {columns}, "data": [{many}]}}}}'
    assert len(body) >= 50 * 2**20
    status, response = server.request("POST", "/invocations", body)
    assert status == 400
    assert re.search(r"request: \d{3},\d{3} bars, at most 100,000 are allowed; send the last 1,512", response.decode())
    status, predicted = server.ask(request_bars)
    assert status == 200
    assert len(predicted) == len(request_bars) - NEEDED + 1


def test_the_benchmark_asks_every_model(trained, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(_served.REPOSITORY))
    from benchmarks import serving

    serving.main(["--root", str(trained.root), "--calls", "2"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["models"].keys() == set(_served.MODELS)
    boosters = [found["models"][model]["exact"]["p50_ms"] for model in ("xgboost", "lightgbm", "catboost")]
    assert found["boosters_p50_ms"] == max(boosters) > 0
    assert found["history"] == {"exact": EXACT, "least": NEEDED}


def test_the_benchmark_asks_for_trained_cells(tmp_path, trained, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(_served.REPOSITORY))
    from benchmarks import serving

    shutil.copy(trained.params, tmp_path)
    with pytest.raises(SystemExit):
        serving.main(["--root", str(tmp_path)])
    assert "no trained model; run `dvc repro evaluate@prior-5` first" in capsys.readouterr().err


def test_python_gets_the_same_from_mlflow(repository, predictors, request_bars, monkeypatch):
    import mlflow

    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    monkeypatch.setattr(sys, "path", list(sys.path))
    uri = f"sqlite:///{repository.root}/experiments/mlflow/mlflow.db"
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:
        model = mlflow.pyfunc.load_model("models:/barcast-h5@champion")
    finally:
        mlflow.set_tracking_uri(before)
    same(model.predict(request_bars), predictors["xgboost"].predict(request_bars))
    same(
        model.predict(request_bars, params={"last_only": True}),
        predictors["xgboost"].predict(request_bars).tail(1).reset_index(drop=True),
    )
    assert model.metadata.signature.inputs.input_names() == ["datetime", "symbol", *OHLCV]
    assert model.metadata.signature.outputs.input_names() == list(PREDICTION_COLUMNS)
    example = model.input_example
    assert len(model.predict(example)) == len(example) - NEEDED + 1
    with pytest.raises(mlflow.exceptions.MlflowException, match=r"symbol 'AAA' has 10 bars, at least 212 are needed"):
        model.predict(request_bars.tail(10))
