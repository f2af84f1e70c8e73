"""The learning curve: a CSV with a line a step, and a picture of it."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

Row = dict[str, str]
SMOOTHED = 50
"""Steps over which the picture averages the loss, at most; fewer in a short training."""


class Curve:
    """``log.csv`` and ``curve.png`` of a training.

    Parameters
    ----------
    folder : Path
    accuracy : sequence of str
        Columns that are measured now and then, and empty otherwise.
    """

    def __init__(self, folder: Path, accuracy: Sequence[str]) -> None:
        self.csv_path = folder / "log.csv"
        self.picture_path = folder / "curve.png"
        self.accuracy = tuple(accuracy)

    def rows(self) -> list[Row]:
        """Return the lines that were written whole."""
        if not self.csv_path.is_file():
            return []
        with self.csv_path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return [row for row in rows if row["step"].isdigit() and None not in row.values()]

    def measured(self) -> list[Row]:
        """Return the lines of steps after which the accuracy was measured."""
        return [row for row in self.rows() if all(row.get(name) for name in self.accuracy)]

    def rewind(self, count: int) -> list[Row]:
        """Forget all after step `count`, which a resume takes again; return what is left."""
        rows = [row for row in self.rows() if int(row["step"]) <= count]
        if not rows:
            self.csv_path.unlink(missing_ok=True)
            return rows
        partial = self.csv_path.with_name("log.csv.partial")
        with partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        partial.replace(self.csv_path)
        return rows

    def add(self, step: int, losses: Mapping[str, float], measured: Mapping[str, float]) -> None:
        """Append one step, with the accuracy where it was `measured`."""
        new = not self.csv_path.is_file()
        with self.csv_path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(["step", *losses, *self.accuracy])
            found = [f"{measured[name]:g}" if measured else "" for name in self.accuracy]
            writer.writerow([step, *(f"{value:.5g}" for value in losses.values()), *found])

    def draw(self, loss: str, accuracy: Sequence[str]) -> None:
        """Draw the smoothed `loss`, and the columns `accuracy` where they were measured."""
        # Loaded here: only a training draws, and it takes a second.
        import matplotlib

        matplotlib.use("agg")
        from matplotlib import pyplot

        rows = self.rows()
        figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
        steps = np.array([int(row["step"]) for row in rows])
        losses = np.array([float(row[loss]) for row in rows])
        width = min(SMOOTHED, len(losses) // 5 + 1)
        smooth = np.convolve(losses, np.ones(width) / width, mode="valid")
        left.plot(steps[width - 1 :], smooth)
        left.set(xlabel="step", ylabel=f"{loss}, mean of {width} steps", yscale="log")
        measured = [row for row in rows if row[accuracy[0]]]
        for name in accuracy:
            right.plot(
                [int(row["step"]) for row in measured],
                [float(row[name]) for row in measured],
                marker="o",
                label=name.replace("ap_", "AP at IoU "),
            )
        right.set(xlabel="step", ylabel="accuracy on the validation images", ylim=(0, 1))
        right.legend()
        figure.savefig(self.picture_path, dpi=120)
        pyplot.close(figure)
