"""`compare`: every cell's metrics and predictions as one leaderboard and one report page."""

from __future__ import annotations

from barcast.comparison.inputs import read_cells, read_label_end_offsets
from barcast.comparison.leaderboard import FILE, Leaderboard, headline
from barcast.comparison.results import CompareConfig, compare_cells
from barcast.comparison.sharpe import read_tuning_trials
from barcast.files import atomic_dir, write_json
from barcast.paths import Paths
from barcast.report.cell_page import write_dvc_plots
from barcast.report.page import render
from barcast.report.read_page import read_page
from barcast.report.tables import render_markdown
from barcast.stages._main import read_settings, run_stage


def compare(config: CompareConfig, paths: Paths) -> Leaderboard:
    """Rank all cells, and test which differences are real; write `experiments/metrics.json` and `experiments/report/`.

    Raises DataError if a cell or the windows lack a file, with the command that makes it, if cells of one horizon were
    scored on different windows, or if test is too short.
    """
    cells = read_cells(config, paths)
    trials = read_tuning_trials(sorted(paths.tune.glob("*/trials.parquet")))
    results = compare_cells(cells, read_label_end_offsets(config, paths), trials, config)
    page = read_page(paths, results)
    with atomic_dir(paths.report) as folder:
        write_json(folder / FILE, results.leaderboard)
        write_json(folder / "intervals.json", results.intervals)
        write_json(folder / "significance.json", results.significance)
        write_json(folder / "overfitting.json", results.overfitting)
        (folder / "leaderboard.md").write_text(render_markdown(results.leaderboard), encoding="utf-8")
        (folder / "index.html").write_text(render(page), encoding="utf-8")
        write_dvc_plots(folder / "plots", page.cells.values(), results.cells)
    write_json(paths.metrics, headline(results.leaderboard))
    return results.leaderboard


def main() -> None:
    """Run the stage with the settings of its spec."""
    paths = Paths()
    compare(read_settings(CompareConfig, "compare", paths), paths)


if __name__ == "__main__":
    run_stage(main)
