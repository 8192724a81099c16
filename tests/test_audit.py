"""Each leak planted and caught by name; clean data passes."""

import copy
import shutil

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from barcast.audit import borders, checks, leakage
from barcast.audit import univariate_auc as auc
from barcast.audit.leakage import LabelOracle
from barcast.config import validate
from barcast.data import features, preparation
from barcast.data.features import compute_features
from barcast.data.frames import SPLITS, nanoseconds
from barcast.data.scaler import Scaler
from barcast.data.split_files import write_split
from barcast.data.splits import split_rows
from barcast.data.synthetic import FUTURES, synthetic_bars, synthetic_splits, write_splits
from barcast.data.window_ends import window_ends
from barcast.errors import DataError, LeakageError
from barcast.files import read_json, write_json
from barcast.paths import Paths
from barcast.stages import audit as stage
from barcast.stages.audit import AuditStageConfig, audit
from barcast.stages.prepare import PrepareConfig, prepare

SYMBOLS, HORIZONS, PURGE, EMBARGO = ["AAA", "BBB"], [5], 12, 30
GROUPS = dict.fromkeys(("candles", "trend", "momentum", "volatility", "volume", "regime"), False)
SETTINGS = {
    "symbols": SYMBOLS,
    "horizons": HORIZONS,
    "data": {
        "source": "bars",
        "path": "bars.parquet",
        "features": {"units": "price", "returns": True, "calendar": True, **GROUPS},
        "scaler": {"kind": "robust", "clip": 5.0},
    },
    "label": {
        "atr_period": 14,
        "horizons": {"h5": {"k_up": 1.0, "k_down": 1.0, "max_bars": PURGE}},
        "symbols": {},
    },
    "split": {"train": 0.7, "val": 0.15, "test": 0.15, "purge_bars": PURGE, "embargo_bars": EMBARGO},
}


def changed(changes=None):
    content = copy.deepcopy(SETTINGS)
    for path, value in (changes or {}).items():
        *parents, last = path.split(".")
        level = content
        for part in parents:
            level = level[part]
        level[last] = value
    return content


def run_prepare(root, **changes):
    prepare(validate(PrepareConfig, changed(changes), "prepare.yaml", "config"), Paths(root))


def audit_settings(**changes):
    content = changed(changes)
    content["data"].setdefault("audit", {"cuts": 2, "max_feature_score": 0.85})
    return content | {"seed": 1, "window": {"seq_len": 10, "max_gap": "2h"}}


def run_audit(root, **changes):
    audit(validate(AuditStageConfig, audit_settings(**changes), "audit.yaml", "config"), Paths(root))
    return read_json(Paths(root).audit)


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """A repository folder with bars (sessions with gaps) and their clean splits; copy it to change it."""
    root = tmp_path_factory.mktemp("clean")
    synthetic_bars(SYMBOLS, 1_100, seed=4, sessions=FUTURES).to_parquet(root / "bars.parquet", index=False)
    run_prepare(root)
    return root


@pytest.fixture
def root(clean, tmp_path):
    shutil.copytree(clean, tmp_path, dirs_exist_ok=True)
    return tmp_path


def edit(root, name, change):
    """Change the stored split `name` by a function of its frame."""
    file = Paths(root).splits / f"{name}_scaled.parquet"
    frame = pd.read_parquet(file)
    write_split(change(frame), file)


def refuse(root, message, error=LeakageError, **changes):
    """The audit fails with one line that matches, and writes nothing."""
    with pytest.raises(error, match=message) as caught:
        run_audit(root, **changes)
    assert "\n" not in str(caught.value)
    assert not Paths(root).audit.exists()


def test_clean_data_passes_and_the_report_has_what_was_examined(root, capsys):
    report = run_audit(root)
    assert report["passed"] is True
    checks = {check["name"]: check for check in report["checks"]}
    assert len(checks) == 9
    assert all(check["passed"] is True for check in checks.values())
    train, val, test = (pd.read_parquet(Paths(root).splits / f"{name}_scaled.parquet") for name in SPLITS)
    features = train.filter(regex="^(ret|day|week)").shape[1]
    assert checks["the scaler is fitted on train alone"]["examined"] == {"features": features, "rows": len(train)}
    stored = checks["the splits hold the audited features"]["examined"]
    assert stored == {"values": features * (len(train) + len(val) + len(test))}
    borders = checks["purge and embargo are whole"]
    assert borders["worst"] == {"purge_bars": PURGE, "embargo_bars": EMBARGO}
    reach = checks["labels end before the next split"]["worst"]
    assert reach["longest_reach_bars"] == train["bars_to_hit_h5"].max()
    assert reach["fewest_bars_to_spare"] >= 0
    windows = checks["windows cross no symbol, gap or split"]
    assert min(windows["examined"].values()) > 100
    assert windows["worst"] == {"longest_step_seconds": 5400.0}  # the last bar opens 20:30, the next one 22:00
    worst = checks["no feature alone tells the outcome"]["worst"]
    assert 0.5 < worst["label"]["score"] < 0.7
    assert worst["label"]["limit"] == 0.85
    rows = len(train) + len(val) + len(test)
    assert checks["the splits hold the prices of the bars"]["examined"] == {"values": 5 * rows}
    assert checks["labels are those of a slow scan"]["examined"] == {"labels": rows}
    assert capsys.readouterr().out.count(": passed\n") == 9


def test_the_same_splits_give_the_same_bytes(root):
    run_audit(root)
    first = Paths(root).audit.read_bytes()
    run_audit(root)
    assert Paths(root).audit.read_bytes() == first


def centred(own, config):
    return compute_features(own, config).assign(
        ret_1=own["close"].rolling(5, center=True, min_periods=1).mean() / own["close"]
    )


def shifted(own, config):
    features = compute_features(own, config)
    return features.assign(ret_2=features["ret_2"].shift(-1).fillna(0.0))


def whole_sample(own, config):
    features = compute_features(own, config)
    return features.assign(ret_3=features["ret_3"] / features["ret_3"].std())


def compute_with(monkeypatch, function):
    """Let the prepare stage take its features from `function`."""
    monkeypatch.setattr(features, "compute_features", lambda own, config, last: function(own, config).iloc[-last:])


@pytest.mark.parametrize(("leaky", "column"), [(centred, "ret_1"), (shifted, "ret_2"), (whole_sample, "ret_3")])
def test_a_feature_that_looks_ahead_is_caught(root, monkeypatch, leaky, column):
    compute_with(monkeypatch, leaky)
    monkeypatch.setattr(checks, "compute_features", leaky)
    run_prepare(root)
    refuse(
        root,
        rf"AAA 20.*\+00:00: feature '{column}' changes when the bars after 20.* are cut off; compute it from bars up",
    )


def test_a_feature_that_looks_ahead_only_where_the_future_is_there_is_caught(root, monkeypatch):
    """Cutting off changes nothing here; altering does."""

    def leaky(own, config):
        features = compute_features(own, config)
        return features.assign(ret_5=features["ret_5"] + (own["close"].shift(-1) > own["close"] * 2))

    compute_with(monkeypatch, leaky)
    monkeypatch.setattr(checks, "compute_features", leaky)
    run_prepare(root)
    refuse(root, r"feature 'ret_5' changes when the bars after 20.* are altered")


def test_splits_made_by_other_code_are_caught(root, monkeypatch):
    compute_with(monkeypatch, lambda own, config: shifted(own, config).assign(ret_1=0.0))
    run_prepare(root)
    refuse(root, r"scaler.json: center of feature 'ret_1' is 0\.0, fitted on train only it is -?\d")


def test_one_stored_value_that_is_not_the_computed_one_is_caught(root):
    def change(frame):
        frame.loc[40, "ret_8"] = np.nextafter(frame.loc[40, "ret_8"], np.float32(9))
        return frame

    time = pd.read_parquet(Paths(root).splits / "val_scaled.parquet")["datetime"].iloc[40].isoformat()
    edit(root, "val", change)
    refuse(root, rf"val: AAA {time[:10]}.*: ret_8 is .*, from the bars it is .*; run `dvc repro")


@pytest.mark.parametrize(("column", "rows"), [("close", -1), ("volume", 3)])
def test_prices_that_are_not_those_of_the_bars_are_caught(root, column, rows):
    edit(root, "test", lambda frame: frame.assign(**{column: frame[column].shift(rows).ffill().bfill()}))
    refuse(root, rf"test: AAA 20.*\+00:00: {column} is [\d.]+, from the bars it is [\d.]+; run `dvc repro prepare`")


def test_labels_that_are_not_those_of_the_bars_are_caught(root):
    def later(frame):
        moved = frame.groupby("symbol")["label_h5"].shift(-40)
        return frame.assign(label_h5=moved.fillna(frame["label_h5"]))

    edit(root, "train", later)
    refuse(
        root, r"train: AAA 20.*\+00:00: label_h5 is -?[01], searching the bars gives -?[01]; run `dvc repro prepare`"
    )


def test_one_wrong_label_and_one_that_is_not_known_are_caught(root, clean):
    def hide(frame):
        frame.loc[10, ["label_h5", "bars_to_hit_h5"]] = pd.NA
        return frame

    def shorten(frame):
        row = int(np.flatnonzero(frame["bars_to_hit_h5"] > 1)[20])
        frame.loc[row, "bars_to_hit_h5"] -= 1
        return frame

    edit(root, "train", hide)
    refuse(root, r"train: AAA 20.*: label_h5 is null, searching the bars gives -?[01]; run")
    shutil.copytree(clean / "data", root / "data", dirs_exist_ok=True)
    edit(root, "val", shorten)
    refuse(root, r"val: AAA 20.*: bars_to_hit_h5 is \d+, searching the bars gives \d+; run")


def test_a_label_whose_outcome_is_not_yet_known_is_caught(root):
    bars = pd.read_parquet(root / "bars.parquet").query("symbol == 'AAA'").reset_index(drop=True)
    config = validate(AuditStageConfig, audit_settings(), "x")
    oracle, at = LabelOracle(bars, 14), np.array([len(bars) - 1])
    part = bars.iloc[at].assign(label_h5=0, bars_to_hit_h5=PURGE)
    with pytest.raises(LeakageError, match=r"test: AAA 20.*: label_h5 is 0, searching the bars gives null"):
        leakage.check_labels(part, at, np.array([0]), 5, oracle, config.label.barriers("AAA", 5), "test")


def test_a_feature_that_no_code_computes_is_caught(root):
    for name in SPLITS:
        edit(root, name, lambda frame: frame.assign(secret=frame["ret_1"]))
    refuse(root, r"train: feature 'secret' is not computed from the bars")


def test_a_normaliser_fitted_on_everything_is_caught(root, monkeypatch):
    real = preparation.split_frame

    def gather(rows, *rest, **named):
        splits, report = real(rows, *rest, **named)
        gather.rows = rows
        return splits, report

    class Everything(Scaler):
        @classmethod
        def fit(cls, frame, config):
            return Scaler.fit(gather.rows[frame.columns], config)

    monkeypatch.setattr(preparation, "split_frame", gather)
    monkeypatch.setattr(preparation, "Scaler", Everything)
    run_prepare(root)
    refuse(
        root, r"scaler.json: (center|scale) of feature 'ret_1' is .*, fitted on train only it is .*; fit the scaler on"
    )


def test_another_kind_of_scaler_is_refused(root):
    refuse(root, r"scaler.json: its kind, clip or features", DataError, **{"data.scaler.kind": "standard"})


def claim(root, **config):
    """Let split.json state what was not done."""
    file = Paths(root).splits / "split.json"
    report = read_json(file)
    write_json(file, report | {"config": report["config"] | config})


def test_a_short_purge_is_caught(root):
    short = {"split.purge_bars": 2, "label.horizons.h5.max_bars": 2}
    run_prepare(root, **short)
    refuse(root, r"split\.json: its `split:` is not that of params\.yaml; run `dvc repro prepare`", DataError)
    claim(root, purge_bars=PURGE)
    message = (
        r"AAA 20.*: the purge is short: 2 bars are between the last row of train and the cut .*split\.purge_bars = 12"
    )
    refuse(root, message)


def test_a_purge_shorter_than_the_longest_label_is_caught(root):
    refuse(root, r"split\.purge_bars = 12: expected at least 20", **{"label.horizons.h5.max_bars": 20})


def test_an_embargo_inside_the_purge_is_caught(root, monkeypatch):
    def overlapping(times, cuts, config):  # the embargo counted from the purge's first row
        inside = config.model_copy(update={"embargo_bars": max(config.embargo_bars - config.purge_bars, 0)})
        return split_rows(times, cuts, inside)

    monkeypatch.setattr("barcast.data.splits.split_rows", overlapping)
    run_prepare(root)
    refuse(root, r"AAA 20.*: the embargo is short: 18 bars are between the first row of val and the cut .* = 30")


def test_a_label_that_crosses_into_the_next_split_is_caught(root):
    def change(frame):
        last = int(np.flatnonzero(frame["symbol"] == "AAA")[-1])
        frame.loc[last - 1, "bars_to_hit_h5"] = PURGE + 2
        return frame

    edit(root, "train", change)
    refuse(root, r"AAA 20.*: bars_to_hit_h5 = 14: the label ends in the next split")


def test_a_label_longer_than_the_purge_is_caught_anywhere(root):
    def change(frame):
        frame.loc[100, "bars_to_hit_h5"] = PURGE + 1
        return frame

    edit(root, "train", change)
    refuse(
        root, r"train: AAA 20.*: bars_to_hit_h5 = 13 is longer than split.purge_bars = 12; raise split.purge_bars to 13"
    )


def test_a_row_without_a_bar_and_missing_files_are_named(root):
    edit(root, "val", lambda frame: frame.assign(datetime=frame["datetime"] + pd.Timedelta("1min")))
    refuse(root, r"val: AAA 20.*: the splits have a row for which there is no bar", DataError)
    (Paths(root).splits / "split.json").unlink()
    refuse(root, r"split.json: no such file; run `dvc repro prepare`", DataError)


def crossing_gaps(symbols, times, seq_len, max_gap_ns):
    return window_ends(symbols, times, seq_len, 10**18)


def crossing_symbols(symbols, times, seq_len, max_gap_ns):
    own = window_ends(symbols, times, seq_len, max_gap_ns)
    return np.sort(np.append(own, np.flatnonzero(np.diff(symbols))[0] + seq_len - 1))


def crossing_the_start(symbols, times, seq_len, max_gap_ns):
    return np.append(seq_len - 2, window_ends(symbols, times, seq_len, max_gap_ns))


@pytest.mark.parametrize(
    ("planted", "message"),
    [
        (crossing_gaps, r"train: AAA 20.*: the window that ends at this bar crosses a gap"),
        (crossing_symbols, r"train: BBB 20.*: the window that ends at this bar crosses a symbol"),
        (crossing_the_start, r"train: AAA 20.*: the window that ends at this bar crosses the split"),
    ],
)
def test_a_window_that_crosses_is_caught(root, monkeypatch, planted, message):
    monkeypatch.setattr(checks, "window_ends", planted)
    refuse(root, message)


def test_a_window_that_crosses_splits_is_caught(root):
    val = pd.read_parquet(Paths(root).splits / "val_scaled.parquet")
    edit(root, "train", lambda frame: pd.concat([frame, val]).sort_values(["symbol", "datetime"], ignore_index=True))
    refuse(root, r"val of AAA starts 20.*, but train of .* ends 20")


def test_a_symbol_without_windows_is_named(root):
    with pytest.raises(
        DataError, match=r"train: AAA: no window of 60 bars; lower window.seq_len, raise window.max_gap"
    ):
        audit(
            validate(
                AuditStageConfig,
                audit_settings() | {"window": {"seq_len": 60, "max_gap": "1h"}},
                "x",
            ),
            Paths(root),
        )


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), seq_len=st.integers(1, 8), extra=st.integers(-2, 60))
def test_windows_that_cross_and_no_others_are_refused(seed, seq_len, extra):
    rng = np.random.default_rng(seed)
    counts = rng.integers(12, 25, 3)
    hours = [np.cumsum(rng.choice([1, 1, 1, 1, 3], count)) for count in counts]
    split = pd.DataFrame(
        {
            "datetime": pd.to_datetime(np.concatenate(hours) * 3600, unit="s", utc=True),
            "symbol": np.repeat(["A", "B", "C"], counts),
        }
    )
    ends = window_ends(pd.factorize(split["symbol"])[0], nanoseconds(split["datetime"]), seq_len, 3600 * 10**9)
    good = set(ends.tolist())
    crosses = extra not in good
    trial = np.array(sorted(good | {extra}))
    lonely = set("ABC") - set(split["symbol"].iloc[ends])
    if crosses and seq_len > 1 and extra < len(split):
        with pytest.raises(LeakageError, match="crosses"):
            borders.check_windows(split, trial, seq_len, 3600 * 10**9, "train")
    elif extra >= 0 and extra < len(split) and not lonely:
        longest = borders.check_windows(split, trial, seq_len, 3600 * 10**9, "train")
        assert longest == (3600 * 10**9 if seq_len > 1 else 0)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    root = tmp_path_factory.mktemp("theirs")
    made = synthetic_splits(seed=3, n_rows=(1_200, 400, 400), n_features=12, symbols=SYMBOLS, horizons=(5,))
    write_splits(made, root / "theirs")
    return root, made


BY_SPLITS = {"data.source": "splits", "data.path": "theirs", "split.purge_bars": 20, "split.embargo_bars": 1_000}


def pass_on(theirs, tmp_path, change=None):
    frames = {name: frame.copy() for name, frame in theirs[1].items()}
    if change:
        change(frames)
    write_splits(frames, tmp_path / "theirs")
    run_prepare(tmp_path, **BY_SPLITS)
    return tmp_path


def test_clean_splits_made_elsewhere_pass(theirs, tmp_path):
    report = run_audit(pass_on(theirs, tmp_path), **BY_SPLITS)
    checks = {check["name"]: check for check in report["checks"]}
    skipped = {name for name, check in checks.items() if "skipped" in check}
    assert skipped == {
        "features know only the past",
        "the scaler is fitted on train alone",
        "the splits hold the audited features",
        "the splits hold the prices of the bars",
        "labels are those of a slow scan",
    }
    assert all(checks[name]["passed"] is True for name in checks.keys() - skipped)
    assert checks["labels end before the next split"]["worst"] == {"longest_reach_bars": 15}
    assert checks["purge and embargo are whole"]["worst"]["bars_between_splits"] >= 1_500


COPIES = {
    "label": lambda frame: frame["label_h5"],
    "bars_to_hit": lambda frame: frame["bars_to_hit_h5"],
    "adverse move": lambda frame: -frame["mae_h5"],
    "weight": lambda frame: frame["sample_weight_h5"],
    "next return": lambda frame: (
        frame.groupby("symbol")["close"].pct_change().groupby(frame["symbol"]).shift(-1).fillna(0)
    ),
    "next five": lambda frame: (
        frame.groupby("symbol")["close"].pct_change(5).groupby(frame["symbol"]).shift(-5).fillna(0)
    ),
}


@pytest.mark.parametrize("name", COPIES)
def test_a_column_of_the_future_under_an_innocent_name_is_caught(theirs, tmp_path, name):
    def plant(frames):
        for frame in frames.values():
            values = COPIES[name](frame).astype(float)
            frame["f007"] = ((values - values.median()) / (values.std() + 1e-12)).clip(-5, 5).astype(np.float32)

    auc = r"with AUC (0\.9\d\d|1\.000), above 0\.\d+ \(from data\.audit\.max_feature_score = 0\.85\)"
    message = rf"feature 'f007' alone predicts (.*_h5|the return over).* {auc}"
    refuse(pass_on(theirs, tmp_path, plant), message, **BY_SPLITS)


@pytest.fixture(scope="module")
def much():
    """Enough honest rows for chance to stay below 0.65; a feature predicts the label with an AUC of 0.7."""
    rows = (6_000, 40, 40)
    return synthetic_splits(seed=3, n_rows=rows, n_features=12, symbols=SYMBOLS, horizons=(5,), signal=0.8)["train"]


def test_a_feature_that_predicts_honestly_but_beyond_the_limit_is_refused(much):
    message = (
        r"feature 'f00\d' alone predicts label_h5 = -?1 with AUC 0\.6[6-9]\d, above 0\.66 \(from data\."
        r"audit\.max_feature_score = 0\.66\); drop it if"
    )
    with pytest.raises(LeakageError, match=message):
        auc.check_univariate_auc(much, [5], 0.66, seed=0)


def test_the_limit_is_never_below_the_configured_one(much):
    for configured in (0.8, 0.97):
        worst = auc.check_univariate_auc(much, [5], configured, seed=0)[1]
        assert worst["label"]["limit"] == configured
        assert worst["copy"]["limit"] == (1 + configured) / 2


def test_short_gaps_between_splits_made_elsewhere_are_caught(theirs, tmp_path):
    root = pass_on(theirs, tmp_path)
    message = (
        r"AAA 20.*: \d+ bars fit between the last row of train and the first of val, .* = 20 \+ 9000; leave more bars"
    )
    refuse(root, message, **{**BY_SPLITS, "split.embargo_bars": 9_000})
    refuse(root, r"bars_to_hit_h5 = 15 is longer than split\.purge_bars = 14", **{**BY_SPLITS, "split.purge_bars": 14})


def spans(shift, spacing=("30min", "30min")):
    """Splits of two symbols, 100 bars each; the second symbol's cuts are `shift` later. Labels end after 5 bars."""
    splits = {name: [] for name in SPLITS}
    for symbol, late, step in zip(SYMBOLS, ("0h", shift), spacing, strict=True):
        times = pd.date_range("2020-01-01", periods=100, freq=step, tz="UTC", unit="ns")
        for place, name in enumerate(SPLITS):
            own = times + place * pd.Timedelta("10D") + pd.Timedelta(late) * min(place, 1)
            splits[name].append(pd.DataFrame({"datetime": own, "symbol": symbol, "bars_to_hit_h5": 5}))
    return {name: pd.concat(parts, ignore_index=True) for name, parts in splits.items()}


def test_the_gap_between_splits_is_counted_between_any_two_symbols():
    fitting = 380  # ten days of half hours less the hundred bars of train
    assert borders.check_borders_by_time(spans("0h"), fitting, 0) == fitting
    assert borders.check_borders_by_time(spans("24h"), fitting - 48, 0) == fitting - 48
    message = (
        r"AAA 2020-01-21.*: 332 bars fit between the last row of val of BBB and the first of test, but split.purge"
        r"_bars \+ split.embargo_bars = 333 \+ 0; leave more bars"
    )
    with pytest.raises(LeakageError, match=message):
        borders.check_borders_by_time(spans("24h"), 333, 0)
    with pytest.raises(LeakageError, match=r"AAA 2020-01-11.*: 380 bars fit between the last row of train and the"):
        borders.check_borders_by_time(spans("24h"), 381, 0)


def test_of_two_spacings_the_shorter_counts():
    """From the end of BBB's val to AAA's test are 81 hours, the least in hours; from BBB's to its own 141."""
    assert borders.check_borders_by_time(spans("60h", ("30min", "1h")), 140, 0) == 140


def test_a_label_may_not_end_in_the_next_split_of_another_symbol(theirs, tmp_path):
    def plant(frames):
        for frame in frames.values():
            frame.loc[frame["symbol"] == "BBB", "datetime"] += pd.Timedelta(days=20)
        last = int(np.flatnonzero(frames["val"]["symbol"] == "BBB")[-1])
        frames["val"].loc[last, "bars_to_hit_h5"] = reach

    reach = 15
    root = pass_on(theirs, tmp_path, plant)
    run_audit(root, **BY_SPLITS)
    Paths(root).audit.unlink()
    reach = 1_500
    root = pass_on(theirs, tmp_path, plant)
    refuse(root, r"BBB 20.*: bars_to_hit_h5 = 1500: the label ends in the next split; it starts", **BY_SPLITS)


def test_a_label_of_splits_made_elsewhere_that_crosses_is_caught(theirs, tmp_path):
    def plant(frames):
        last = int(np.flatnonzero(frames["val"]["symbol"] == "BBB")[-1])
        frames["val"].loc[last, "bars_to_hit_h5"] = 5_000

    refuse(
        pass_on(theirs, tmp_path, plant),
        r"BBB 20.*: bars_to_hit_h5 = 5000: the label ends in the next split",
        **BY_SPLITS,
    )


def test_a_label_ends_in_the_next_split_from_its_first_bar_on():
    part = pd.DataFrame(
        {
            "datetime": pd.to_datetime(np.arange(5) * 3600, unit="s", utc=True),
            "symbol": "A",
            "bars_to_hit_h5": pd.array([1, 1, 1, 1, 9], "Int32"),
        }
    )
    last = part["datetime"].iloc[-1]
    borders.check_label_ends_by_time(part, last + pd.Timedelta(hours=10), [5])
    with pytest.raises(LeakageError, match="bars_to_hit_h5 = 9"):
        borders.check_label_ends_by_time(part, last + pd.Timedelta(hours=9), [5])


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.integers(-3, 3), min_size=2, max_size=30),
    answers=st.lists(st.booleans(), min_size=30, max_size=30),
)
def test_rank_auc_is_the_share_of_ordered_pairs(values, answers):
    values, yes = np.array(values), np.array(answers[: len(values)])
    pairs = [(a > b) + 0.5 * (a == b) for a in values[yes] for b in values[~yes]]
    expected = np.mean(pairs) if pairs else 0.5
    assert auc.rank_auc(auc.average_ranks(values), yes) == pytest.approx(expected)


def test_the_univariate_auc_sees_rising_falling_and_u_shaped_relations():
    rng = np.random.default_rng(0)
    x = rng.normal(size=4_000)
    answers = np.array([x > 0.3, x < 0.3, np.abs(x) > 1, rng.random(4_000) > 0.5])
    rising, falling, both, noise = auc.univariate_auc(x.astype(np.float32), answers)
    assert rising == falling == 1.0
    assert both > 0.97
    assert noise < 0.55
    assert auc.univariate_auc(np.ones(4_000), answers[:1]) == [0.5]
    assert auc.univariate_auc(x, answers[:0]).shape == (0,)


LITTLE = {"h5": {"k_up": 1.25, "k_down": 1.25, "max_bars": 5}, "h20": {"k_up": 2.5, "k_down": 2.5, "max_bars": 20}}


@pytest.fixture(scope="module")
def martingales():
    """Train splits of one symbol without any signal, 260 rows each, and their features."""
    groups = dict.fromkeys((*GROUPS, "returns", "calendar"), True)
    content = changed({"data.features": {"units": "atr", **groups}})
    content |= {"symbols": ["AAA"], "horizons": [5, 20]}
    content["label"]["horizons"] = LITTLE
    config = validate(PrepareConfig, content, "x")
    split = config.split.model_copy(update={"purge_bars": 20, "embargo_bars": 0})
    rows = [preparation.build_rows(synthetic_bars(["AAA"], 600, seed=seed), config) for seed in range(4)]
    return [preparation.split_frame(each, split, [5, 20], 20, 1)[0]["train"] for each in rows]


def test_little_honest_data_passes_and_the_limit_is_stated(martingales):
    for train in martingales:
        assert len(train) == 260
        worst = auc.check_univariate_auc(train, [5, 20], 0.7, seed=0)[1]["label"]
        assert worst["score"] < worst["limit"] <= 0.95
    assert worst["limit"] > 0.7


def test_a_leak_is_caught_on_little_data(martingales):
    rng = np.random.default_rng(0)
    for train in martingales:
        for horizon in (5, 20):
            label = train[f"label_h{horizon}"].to_numpy(np.float64)
            for noise in (0.0, 0.3):
                leaky = train.assign(ret_1=label + rng.normal(0, noise, len(train)))
                with pytest.raises(LeakageError) as caught:
                    auc.check_univariate_auc(leaky, [5, 20], 0.7, seed=0)
                assert "feature 'ret_1' alone predicts label_h" in str(caught.value)
    message = (
        r"above 0\.95 \(from data\.audit\.max_feature_score = 0\.7, raised to what chance alone can reach on so few"
    )
    with pytest.raises(LeakageError, match=message):
        auc.check_univariate_auc(leaky, [20], 0.7, seed=0)


def test_chance_explains_less_the_more_labels_there_are():
    few, many = (auc.chance_auc(independent, 0.4, 1_000) for independent in (25, 2_000))
    assert few > 0.95
    assert 0.55 < many < 0.6
    assert auc.chance_auc(2_000, 0.1, 1_000) > many
    assert auc.chance_auc(2_000, 0.4, 10) < many


def test_bars_that_are_altered_are_still_bars_and_keep_their_past():
    bars = synthetic_bars(["AAA"], 300, seed=0)
    altered = leakage.alter_future(bars, 50, np.random.default_rng(0))
    assert len(altered) == 51 + leakage.ALTERED_BARS
    pd.testing.assert_frame_equal(altered.iloc[:51], bars.iloc[:51])
    prices = altered[["open", "high", "low", "close"]]
    assert (altered["high"] == prices.max(axis=1)).all()
    assert (altered["low"] == prices.min(axis=1)).all()
    assert (altered["close"].iloc[51:] > bars["close"].iloc[51:251] * 1.2).all()
    assert (altered["volume"].iloc[51:] != bars["volume"].iloc[51:251]).all()


def test_the_first_difference_is_the_earliest_row():
    a = pd.DataFrame({"x": [np.nan, 1.0, 2.0], "y": [0.0, 1.0, 2.0]})
    assert leakage.first_difference(a, a.copy(), 3) is None
    b = pd.DataFrame({"x": [np.nan, 1.0, 3.0], "y": [0.0, 9.0, 2.0]})
    assert leakage.first_difference(a, b, 3) == ("y", 1)
    assert leakage.first_difference(a, b, 1) is None
    assert leakage.first_difference(a, a.assign(x=0.0), 3) == ("x", 0)


def test_the_stage_reads_its_spec(root, monkeypatch):
    monkeypatch.chdir(root)
    Paths().specs.mkdir(parents=True)
    Paths().spec("audit").write_text(yaml.safe_dump({"stage": "audit", "config": audit_settings()}))
    stage.main()
    assert read_json(Paths().audit)["passed"] is True
