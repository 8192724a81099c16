"""Raw bars in, predictions out: the same checks, features, scaler, windows and model call as in training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pandas as pd

from barcast.data.bars import bar_spacing, check_bars, known_bars
from barcast.data.features import feature_names, fill_features, warmup_bars
from barcast.data.window_ends import window_ends
from barcast.data.windows import Windows
from barcast.errors import DataError, ModelError
from barcast.evaluation.postprocess import Postprocess
from barcast.models.registry import ModelRegistry
from barcast.serving.bundle import POSTPROCESS_FILE, ServingConfig, read_config
from barcast.training.memory import keep_freed_memory

PREDICTION_COLUMNS = ("datetime", "symbol", "prediction", "p_down", "p_flat", "p_up", "uncertainty")


class Predictor:
    """A served model, loaded once and called often.

    Args:
        folder: a bundle (see `bundle`), such as `experiments/registry/h5/model`.

    Raises:
        ModelError: the folder has no served model, or its parts don't match.
    """

    def __init__(self, folder: Path) -> None:
        keep_freed_memory()  # a network frees all that it made for a request
        self.config: ServingConfig = read_config(folder)
        self.model = ModelRegistry.get_metadata(self.config.model).model_class.load(folder)
        self._scaler = self.config.fitted_scaler()
        self._postprocess = Postprocess.load(folder / POSTPROCESS_FILE)
        self._lock = Lock()  # a server calls from several threads, and libraries change settings while they predict
        self._names = feature_names(self.config.features)
        self._warmup = warmup_bars(self.config.features)
        if not self._names == list(self._scaler.columns) == self.model.feature_columns:
            raise ModelError(f"{folder}: the columns of model, scaler and features differ; promote the model again")

    def predict(self, table: pd.DataFrame, last_only: bool = False, source: str = "request") -> pd.DataFrame:
        """Predict for every bar that has its window, and before it the features' warm-up, in the table.

        Args:
            table: bars of one or more known symbols, each symbol's rows ascending in time: `datetime` (UTC or with
                its zone; ISO 8601 text or timestamps), `symbol`, `open, high, low, close, volume`.
            last_only: predict only for the last bar of each symbol, in the time that this one takes.
            source: the origin of the bars, for the error message.

        Returns:
            The columns `PREDICTION_COLUMNS`, one row per predicted bar, in the order of the table.

        Raises:
            DataError: a bar breaks a rule, or a symbol is unknown, has too few bars, bars of another length than in
                training, or no window without a gap.
        """
        bars = known_bars(table, self.config.symbols, source)
        check_bars(bars, source)
        parts = list(split_symbols(bars))
        for part in parts:
            if len(part) < self.config.needed_bars:
                raise DataError(f"{source}: {self.too_few(part['symbol'].iloc[0], len(part))}")
            self.check_length(part, source)
        predictions, counts = self.predict_parts(parts, [1 if last_only else len(part) for part in parts])
        for part, count in zip(parts, counts, strict=True):
            if not count:
                raise DataError(f"{source}: {self.explain_gap(part)}")
        return predictions.reset_index(drop=True)

    def predict_parts(self, parts: list[pd.DataFrame], wanted: list[int]) -> tuple[pd.DataFrame, list[int]]:
        """Predict for the last `wanted` bars of each symbol's checked bars, where they have a whole window.

        Returns:
            The columns `PREDICTION_COLUMNS`, with the bars' row labels as ascending index; and the rows per symbol.
        """
        length, columns = self.config.seq_len, ["datetime", "symbol"]
        rows = [max(min(len(p) - self._warmup, n + length - 1), 0) for p, n in zip(parts, wanted, strict=True)]
        used = [part.iloc[len(part) - count :] for part, count in zip(parts, rows, strict=True)]
        codes = np.repeat(np.arange(len(parts)), rows)
        times = np.concatenate([pd.DatetimeIndex(part["datetime"]).asi8 for part in used])
        ends = window_ends(codes, times, length, self.config.max_gap_ns)
        counts = np.bincount(codes[ends], minlength=len(parts)).tolist()
        if not len(ends):
            return parts[0][columns].iloc[:0].reindex(columns=list(PREDICTION_COLUMNS)), counts
        block = np.empty((len(self._names), len(codes)), np.float32)  # [F, R], as features come
        starts = np.cumsum([0, *rows])
        for part, start, stop in zip(parts, starts, starts[1:], strict=False):
            if stop > start:
                fill_features(part, self.config.features, block[:, start:stop])
        windows = Windows(np.ascontiguousarray(self._scaler.scaled(block.T)), ends, length)  # [N, L, F]
        meta = (used[0] if len(used) == 1 else pd.concat(used))[columns].iloc[ends]
        with self._lock:
            output = self._postprocess.apply(self.model.predict(windows, meta))
        predictions = output.to_dataframe()[list(PREDICTION_COLUMNS)].set_axis(meta.index)
        return (predictions if len(parts) == 1 else predictions.sort_index()), counts

    def warm_up(self) -> None:
        """Predict once on synthetic bars, so that the first caller doesn't wait for what is compiled or loaded then."""
        from barcast.data.synthetic import synthetic_bars

        spacing = f"{self.config.bar_seconds}s"
        self.predict(synthetic_bars(self.config.symbols[:1], self.config.needed_bars, seed=0, spacing=spacing))

    def explain_gap(self, part: pd.DataFrame) -> str:
        """Why a symbol with enough bars has no prediction."""
        symbol, config = part["symbol"].iloc[0], self.config
        steps = part["datetime"].diff()[self._warmup + 1 :]
        at = part["datetime"].loc[steps[steps > pd.Timedelta(config.max_gap)].index[-1]]
        return (
            f"symbol '{symbol}': fewer than the {config.seq_len} bars of a window follow the gap before "
            f"{at.isoformat()} (the longest gap allowed in a window is {config.max_gap}); add the missing bars, or "
            f"wait for {config.seq_len} bars after it"
        )

    def check_length(self, part: pd.DataFrame, source: str) -> None:
        """Refuse one symbol's bars if their length is not that of training.

        Raises:
            DataError: it is not.
        """
        spacing = bar_spacing(part["datetime"])
        if spacing != self.config.bar:
            raise DataError(
                f"{source}: symbol '{part['symbol'].iloc[0]}' has a bar every {_text(spacing)}, the model was trained "
                f"on one every {_text(self.config.bar)}; use bars of that length"
            )

    def too_few(self, symbol: str, count: int) -> str:
        """The message for a symbol with fewer bars than one prediction needs."""
        config = self.config
        return (
            f"symbol '{symbol}' has {count} bars, at least {config.needed_bars} are needed ({self._warmup} for the "
            f"features' warm-up and {config.seq_len} for one window); with {config.exact_bars} predictions are the "
            "same as with any longer history"
        )


def split_symbols(bars: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """The rows of each symbol in their order, symbols sorted by name; row labels are kept."""
    codes, names = pd.factorize(bars["symbol"], sort=True)
    if len(names) == 1:
        yield bars
        return
    for code in range(len(names)):
        yield bars[codes == code]


def _text(duration: pd.Timedelta) -> str:
    """`30 min`, `1 h`, `1 d`, or seconds."""
    units: tuple[tuple[Any, str], ...] = ((86_400, "d"), (3_600, "h"), (60, "min"))
    seconds = duration.total_seconds()
    fitting = next(((size, name) for size, name in units if seconds % size == 0), (1, "s"))
    return f"{seconds / fitting[0]:g} {fitting[1]}"
