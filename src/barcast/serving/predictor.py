"""Raw bars in, answers out: the same checks, features, scaler, windows and model call as in training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pandas as pd

from barcast.data.bars import bar_spacing, check_bars, known_bars
from barcast.data.features import feature_names, fill_features, warmup_bars
from barcast.data.windows import Windows, window_ends
from barcast.errors import DataError, ModelError
from barcast.evaluation.postprocess import Postprocess
from barcast.models.registry import ModelRegistry
from barcast.serving.bundle import POSTPROCESS_FILE, ServingConfig, read_config

ANSWER = ("datetime", "symbol", "prediction", "p_down", "p_flat", "p_up", "uncertainty")


class Predictor:
    """A served model, loaded once and asked often.

    Args:
        folder: a bundle (see `bundle`), such as `experiments/registry/h5/model`.

    Raises:
        ModelError: the folder holds no served model, or one whose parts don't belong together.
    """

    def __init__(self, folder: Path) -> None:
        self.config: ServingConfig = read_config(folder)
        self.model = ModelRegistry.get_metadata(self.config.model).model_class.load(folder)
        self._scaler = self.config.fitted_scaler()
        self._postprocess = Postprocess.load(folder / POSTPROCESS_FILE)
        self._lock = Lock()  # a server asks from several threads, and libraries change settings while they answer
        self._names = feature_names(self.config.features)
        self._warmup = warmup_bars(self.config.features)
        if not self._names == list(self._scaler.columns) == self.model.feature_columns:
            raise ModelError(f"{folder}: model, scaler and features name other columns; promote the model again")

    def predict(self, table: pd.DataFrame, last_only: bool = False, source: str = "request") -> pd.DataFrame:
        """Answer every bar that has its window and, before that, the features' warm-up in the table.

        Args:
            table: bars of one or more known symbols, each symbol's rows ascending in time: `datetime` (UTC or with
                its zone; text in ISO 8601 will do), `symbol`, `open, high, low, close, volume`.
            last_only: answer the last bar of each symbol alone, in the time that this one takes.
            source: where the bars came from, for the message.

        Returns:
            The columns of `ANSWER`, a row an answered bar, in the order of the table.

        Raises:
            DataError: a bar breaks a rule, a symbol is unknown, its bars are too few, of another length than those
                that the model was trained on, or no window of them is free of gaps.
        """
        bars = known_bars(table, self.config.symbols, source)
        check_bars(bars, source)
        parts = list(split_symbols(bars))
        for part in parts:
            self._require(part, source)
        answers, counts = self.answer(parts, [1 if last_only else len(part) for part in parts])
        for part, count in zip(parts, counts, strict=True):
            if not count:
                raise DataError(f"{source}: {self.explain_gap(part)}")
        return answers.reset_index(drop=True)

    def answer(self, parts: list[pd.DataFrame], wanted: list[int]) -> tuple[pd.DataFrame, list[int]]:
        """Answer the last `wanted` bars of each symbol's checked bars, as far as they have what it takes.

        Returns:
            The columns of `ANSWER`, with the bars' row labels as index, ascending; and how many each symbol got.
        """
        length, columns = self.config.seq_len, ["datetime", "symbol"]
        rows = [max(min(len(p) - self._warmup, n + length - 1), 0) for p, n in zip(parts, wanted, strict=True)]
        used = [part.iloc[len(part) - count :] for part, count in zip(parts, rows, strict=True)]
        codes = np.repeat(np.arange(len(parts)), rows)
        times = np.concatenate([pd.DatetimeIndex(part["datetime"]).asi8 for part in used])
        ends = window_ends(codes, times, length, self.config.max_gap_ns)
        counts = np.bincount(codes[ends], minlength=len(parts)).tolist()
        if not len(ends):
            return parts[0][columns].iloc[:0].reindex(columns=list(ANSWER)), counts
        block = np.empty((len(self._names), len(codes)), np.float32)  # [F, R], as features come
        starts = np.cumsum([0, *rows])
        for part, start, stop in zip(parts, starts, starts[1:], strict=False):
            if stop > start:
                fill_features(part, self.config.features, block[:, start:stop])
        windows = Windows(np.ascontiguousarray(self._scaler.scaled(block.T)), ends, length)  # [N, L, F]
        meta = (used[0] if len(used) == 1 else pd.concat(used))[columns].iloc[ends]
        with self._lock:
            output = self._postprocess.apply(self.model.predict(windows, meta))
        answers = output.to_dataframe()[list(ANSWER)].set_axis(meta.index)
        return (answers if len(parts) == 1 else answers.sort_index()), counts

    def warm_up(self) -> None:
        """Answer one made-up bar, so that what is compiled or loaded on first use is there for the first caller."""
        from barcast.data.synthetic import synthetic_bars

        spacing = f"{self.config.bar_seconds}s"
        self.predict(synthetic_bars(self.config.symbols[:1], self.config.needed_bars, seed=0, spacing=spacing))

    def explain_gap(self, part: pd.DataFrame) -> str:
        """Why a symbol with bars enough has no answer."""
        symbol, config = part["symbol"].iloc[0], self.config
        steps = part["datetime"].diff()[self._warmup + 1 :]
        at = part["datetime"].loc[steps[steps > pd.Timedelta(config.max_gap)].index[-1]]
        return (
            f"symbol '{symbol}': fewer than the {config.seq_len} bars of a window follow the gap before "
            f"{at.isoformat()} (the longest that a window may span is {config.max_gap}); give the missing bars, or "
            f"wait until {config.seq_len} have followed"
        )

    def check_length(self, part: pd.DataFrame, source: str) -> None:
        """Refuse one symbol's bars that stand further apart, or closer, than those that the model was trained on.

        Raises:
            DataError: they do.
        """
        spacing = bar_spacing(part["datetime"])
        if spacing != self.config.bar:
            raise DataError(
                f"{source}: symbol '{part['symbol'].iloc[0]}' has a bar every {_text(spacing)}, the model was trained "
                f"on one every {_text(self.config.bar)}; give bars of that length"
            )

    def too_few(self, symbol: str, count: int) -> str:
        """The refusal of a symbol with fewer bars than one answer takes."""
        config = self.config
        return (
            f"symbol '{symbol}' has {count} bars, at least {config.needed_bars} are needed ({self._warmup} for the "
            f"features' warm-up and {config.seq_len} for one window); give {config.exact_bars} for the same answers as "
            "with any longer history"
        )

    def _require(self, part: pd.DataFrame, source: str) -> None:
        if len(part) < self.config.needed_bars:
            raise DataError(f"{source}: {self.too_few(part['symbol'].iloc[0], len(part))}")
        self.check_length(part, source)


def split_symbols(bars: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """The rows of each symbol in their order, the symbols by their name; row labels are kept."""
    codes, names = pd.factorize(bars["symbol"], sort=True)
    if len(names) == 1:
        yield bars
        return
    for code in range(len(names)):
        yield bars[codes == code]


def _text(duration: pd.Timedelta) -> str:
    """`30 min`, `1 h`, `1 d`; seconds where nothing larger fits."""
    units: tuple[tuple[Any, str], ...] = ((86_400, "d"), (3_600, "h"), (60, "min"))
    seconds = duration.total_seconds()
    fitting = next(((size, name) for size, name in units if seconds % size == 0), (1, "s"))
    return f"{seconds / fitting[0]:g} {fitting[1]}"
