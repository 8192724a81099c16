"""Predictions for files larger than memory: chunk by chunk, with the bars before that a prediction depends on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from barcast.data.bar_files import list_files, stream_file
from barcast.data.bars import check_bars, unknown_symbol
from barcast.errors import ConfigError, DataError
from barcast.files import atomic_file
from barcast.serving.predictor import Predictor, split_symbols

SUFFIXES = (".parquet", ".csv")


class StreamPredictor:
    """A predictor that keeps the last bars of each symbol, and predicts for those that follow."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self._kept: dict[str, pd.DataFrame] = {}
        self._seen: Counter[str] = Counter()
        self.predicted: Counter[str] = Counter()  # rows per symbol

    def predict(self, bars: pd.DataFrame, file: str) -> pd.DataFrame:
        """Predict for bars that follow those of the calls before.

        Raises:
            DataError: as `Predictor.predict`, naming file and row.
        """
        news = {str(part["symbol"].iloc[0]): part for part in split_symbols(bars)}
        before = [kept.tail(1) for symbol, kept in self._kept.items() if symbol in news]
        check_bars(pd.concat([*before, bars]), file)
        needed, parts = self._predictor.config.needed_bars, []
        for symbol, new in news.items():
            part = pd.concat([self._kept[symbol], new]) if symbol in self._kept else new
            if self._seen[symbol] < needed <= self._seen[symbol] + len(new):  # once per symbol
                self._predictor.check_length(part, file)
            self._seen[symbol] += len(new)
            self._kept[symbol] = part.tail(self._predictor.config.exact_bars - 1)
            parts.append(part)
        predictions, counts = self._predictor.predict_parts(parts, [len(new) for new in news.values()])
        self.predicted.update(dict(zip(news, counts, strict=True)))
        return predictions

    def finish(self, source: str) -> None:
        """Refuse symbols without a prediction, as `Predictor.predict` does.

        Raises:
            DataError: naming the symbol.
        """
        for symbol, seen in sorted(self._seen.items()):
            if seen < self._predictor.config.needed_bars:
                raise DataError(f"{source}: {self._predictor.too_few(symbol, seen)}")
            if not self.predicted[symbol]:
                raise DataError(f"{source}: {self._predictor.explain_gap(self._kept[symbol])}")


def predict_file(predictor: Predictor, source: Path, out: Path, chunk_rows: int) -> dict[str, int]:
    """Predict for every bar of a file, or of a folder with one file per symbol, as `Predictor.predict` for a table.

    Predictions are in the order of the bars and don't depend on `chunk_rows`: bit-identical for boosters and
    baselines, within 1e-6 for networks.

    Args:
        predictor: the served model.
        source: Parquet or CSV; each symbol's rows ascend in time, symbols may be one after the other or mixed.
        out: a Parquet or CSV file in an existing folder, outside the folder of bars; written whole or not at all.
        chunk_rows: bars in memory at a time, beside the last ones of each symbol.

    Returns:
        The predicted bars per symbol.

    Raises:
        ConfigError: `out` is neither .parquet nor .csv, would replace or join the bars, or its folder is missing.
        DataError: there are no bars, or as `Predictor.predict`, naming file and row.
    """
    _check_paths(source, out)
    stream = StreamPredictor(predictor)
    with atomic_file(out) as temporary, _writer(temporary, out.suffix) as write:
        for file, bars in _chunks(source, predictor.config.symbols, chunk_rows):
            write(stream.predict(bars, str(file)))
        stream.finish(str(source))
    return dict(stream.predicted)


def _check_paths(source: Path, out: Path) -> None:
    if out.suffix not in SUFFIXES:
        raise ConfigError(f"{out}: predictions are written as {' or '.join(SUFFIXES)}; use one of these endings")
    if not source.exists():
        raise DataError(f"{source}: no such file or folder; give a file of bars, or a folder of them")
    bars, target = source.resolve(), out.resolve()
    if bars == target or (out.exists() and out.samefile(source)):
        raise ConfigError(f"{out}: this is the file of bars; write the predictions to another file")
    if bars.is_dir() and target.is_relative_to(bars):
        raise ConfigError(f"{out}: is in the folder of bars, {source}; write the predictions to another folder")
    if not out.parent.is_dir():
        raise ConfigError(f"{out}: there is no folder {out.parent}; create it first, or correct the path")


def _chunks(source: Path, known: list[str], rows: int) -> Iterator[tuple[Path, pd.DataFrame]]:
    """Bars in the common form with their row numbers; all bars of a symbol are in one file."""
    origin: dict[str, Path] = {}
    for file in list_files(source):
        for bars, present in stream_file(file, known, file.stem if source.is_dir() else None, rows):
            for symbol in sorted(present):
                if symbol not in known:
                    raise unknown_symbol(str(file), symbol, known)
                first = origin.setdefault(symbol, file)
                if first != file:
                    raise DataError(f"{source}: symbol '{symbol}' is in {first.name} and {file.name}; keep one")
            if len(bars):
                yield file, bars


@contextmanager
def _writer(path: Path, suffix: str) -> Iterator[Callable[[pd.DataFrame], None]]:
    """A function that appends predictions to a Parquet or CSV file."""
    with ExitStack() as stack:
        parquet: pq.ParquetWriter | None = None

        def write(predictions: pd.DataFrame) -> None:
            nonlocal parquet
            if predictions.empty:
                return
            if suffix == ".csv":
                started = path.exists() and path.stat().st_size > 0
                predictions.to_csv(path, mode="a", header=not started, index=False)
                return
            table = pa.Table.from_pandas(predictions, preserve_index=False)
            if parquet is None:
                parquet = stack.enter_context(pq.ParquetWriter(path, table.schema, compression="zstd"))
            parquet.write_table(table)

        yield write
