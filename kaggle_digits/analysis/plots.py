"""Draw label counts, digits, learning curves, confusion matrices, calibration and the worst mistakes.

Every function returns a new ``matplotlib`` Figure and shows nothing. Save the figure, or let a notebook show it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np
from cycler import cycler
from matplotlib import rc_context
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kaggle_digits.analysis.calibration import calibration_error, reliability
from kaggle_digits.digits import CLASSES, SIDE, counted

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Colours that people with any kind of colour vision can tell apart. Source: Okabe and Ito 2008."""

BLUE, GREY = PALETTE[0], "#787878"

STYLE: Any = {
    # Without a background, and with text in a grey of medium brightness, plots are readable in light and dark.
    **dict.fromkeys(("figure.facecolor", "axes.facecolor"), "none"),
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), GREY),
    "grid.color": GREY,
    "grid.alpha": 0.25,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": "medium",
    "axes.prop_cycle": cycler(color=PALETTE),
    "legend.frameon": False,
}
"""The style of every plot."""


@rc_context(STYLE)
def plot_label_counts(digits: np.ndarray) -> Figure:
    """Draw how often each digit occurs.

    Args:
        digits: (N,) integers, 0–9.
    """
    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    counts = np.bincount(digits, minlength=CLASSES)
    _seaborn().barplot(x=np.arange(CLASSES), y=counts, color=BLUE, ax=axes)
    for digit, count in enumerate(counts):
        axes.text(digit, count, f"{count:,}", ha="center", va="bottom", fontsize=8)
    axes.set(xlabel="digit", ylabel="rows", title=f"{len(digits):,} rows by digit")
    return figure


@rc_context(STYLE)
def plot_digits(pixels: np.ndarray, titles: Sequence[object], *, columns: int = 10) -> Figure:
    """Draw digits in a grid, dark ink on white as on paper.

    Args:
        pixels: (N, 784), 0–255, with bright ink.
        titles: N short texts or numbers, one to stand above each digit.
        columns: the number of columns of the grid.
    """
    rows = max(1, -(-len(pixels) // columns))
    figure = Figure(figsize=(columns * 0.9, rows * 1.1), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, image, title in zip(grid, pixels, titles, strict=False):
        _draw_digit(axes, image, str(title))
    for axes in grid:
        axes.axis("off")
    return figure


def _draw_digit(axes: Any, pixels: np.ndarray, title: str, **options: Any) -> None:
    axes.imshow(pixels.reshape(SIDE, SIDE), cmap="gray_r", vmin=0, vmax=255)
    axes.set_title(title, fontsize=8, **options)


@rc_context(STYLE)
def plot_curves(runs: Mapping[str, Sequence[Mapping[str, Any]]], *, stacked: bool = False) -> Figure:
    """Draw loss and accuracy over the epochs, with a colour for each run.

    The accuracy on held-out rows is a solid line, the accuracy while training a dashed one.

    Args:
        runs: the list ``epochs`` of each run.json, by the name of the run.
        stacked: whether to put one plot below the other, for a phone.
    """
    figure = Figure(figsize=(5.5, 5.6) if stacked else (9, 3.2), layout="constrained")
    losses, accuracies = figure.subplots(*((2, 1) if stacked else (1, 2)))
    for colour, (name, epochs) in zip(_colours(len(runs)), runs.items(), strict=True):
        numbers = [metrics["epoch"] for metrics in epochs]
        losses.plot(numbers, [metrics["loss"] for metrics in epochs], ".-", color=colour, label=name)
        accuracies.plot(numbers, [metrics["accuracy"] for metrics in epochs], ".--", color=colour, alpha=0.6)
        held_out = [metrics.get("validation_accuracy", np.nan) for metrics in epochs]
        accuracies.plot(numbers, held_out, ".-", color=colour, label=name)
    losses.set(xlabel="epoch", ylabel="loss while training", yscale="log", title="Loss (runs may use different ones)")
    accuracies.set(xlabel="epoch", ylabel="accuracy", title="Accuracy: held out (solid), training (dashed)")
    for axes in (losses, accuracies):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend()
    return figure


@rc_context(STYLE)
def plot_learning_rate(rates: Mapping[str, np.ndarray]) -> Figure:
    """Draw the learning rate at every step of one or several trainings.

    Args:
        rates: (S,) for each training, by its name.
    """
    figure = Figure(figsize=(5.5, 2.6), layout="constrained")
    axes = figure.subplots()
    for colour, (name, values) in zip(_colours(len(rates)), rates.items(), strict=True):
        axes.plot(np.arange(1, len(values) + 1), values, color=colour, label=name)
    axes.set(xlabel="optimizer step", ylabel="learning rate", title="Learning rate")
    axes.set_ylim(bottom=0)
    axes.grid()
    axes.legend()
    return figure


@rc_context(STYLE)
def plot_reasons(
    pixels: np.ndarray, titles: Sequence[str], maps: np.ndarray, near: np.ndarray, near_digits: np.ndarray
) -> Figure:
    """Draw images, the parts that matter for their reading, and the nearest training images.

    In the map, parts that speak for the reading are orange, and parts against it blue.

    Args:
        pixels: (N, 784), 0–255.
        titles: N short texts.
        maps: (N, 28, 28), of ``occlusion.occlusion_map``.
        near: (N, K, 784), 0–255.
        near_digits: (N, K) integers, 0–9, their labels.
    """
    colours = LinearSegmentedColormap.from_list("why", [BLUE, "white", PALETTE[1]])
    count = near.shape[1]
    figure = Figure(figsize=((count + 2) * 1.05, len(pixels) * 1.35), layout="constrained")
    grid = figure.subplots(len(pixels), count + 2, squeeze=False)
    for row, (image, title, contributions) in enumerate(zip(pixels, titles, maps, strict=True)):
        given, why, *others = grid[row]
        _draw_digit(given, image, title)
        why.imshow(255 - image.reshape(SIDE, SIDE) * 0.45, cmap="gray", vmin=0, vmax=255)
        most = max(0.05, float(np.abs(contributions).max()))
        why.imshow(contributions, cmap=colours, vmin=-most, vmax=most, alpha=np.abs(contributions) / most * 0.85)
        why.set_title("why", fontsize=8)
        for axes, neighbour, digit in zip(others, near[row], near_digits[row], strict=True):
            _draw_digit(axes, neighbour, f"near: {digit}", color=GREY)
    for axes in grid.ravel():
        axes.axis("off")
    return figure


def confusion(probabilities: np.ndarray, digits: np.ndarray) -> np.ndarray:
    """Return how often each digit (row) is read as each digit (column), (10, 10) integers."""
    counts = np.zeros((CLASSES, CLASSES), int)
    np.add.at(counts, (digits, probabilities.argmax(axis=1)), 1)
    return counts


def plot_confusions(readings: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, Figure]:
    """Draw a confusion matrix for each name, all with the same colours.

    Args:
        readings: probabilities (N, 10) and true digits (N,) by name.
    """
    wrong = ~np.eye(CLASSES, dtype=bool)
    darkest = max((int(confusion(*reading)[wrong].max()) for reading in readings.values()), default=1)
    return {name: plot_confusion(*reading, darkest=darkest) for name, reading in readings.items()}


@rc_context(STYLE)
def plot_confusion(probabilities: np.ndarray, digits: np.ndarray, *, darkest: int | None = None) -> Figure:
    """Draw how often each digit is read as each of the others. The diagonal, which is right, has no colour.

    Args:
        probabilities: (N, 10), for rows that were not trained on.
        digits: (N,) integers, the truth.
        darkest: the number of mistakes with the darkest colour, so that several plots can share their colours; None
            takes the greatest number in this one.
    """
    counts = confusion(probabilities, digits)
    wrong = np.where(np.eye(CLASSES, dtype=bool), 0, counts)
    figure = Figure(figsize=(5.5, 4.8), layout="constrained")
    axes = figure.subplots()
    limit = max(1, darkest or wrong.max())
    _seaborn().heatmap(wrong, annot=counts, fmt="d", cmap="Reds", vmin=0, vmax=limit, cbar=False, square=True, ax=axes)
    axes.set(xlabel="read as", ylabel="is", title=f"{counted(wrong.sum(), 'mistake')} in {len(digits):,} held-out rows")
    axes.tick_params(rotation=0)
    return figure


@rc_context(STYLE)
def plot_reliability(probabilities: np.ndarray, digits: np.ndarray) -> Figure:
    """Draw the share of right digits against the certainty of their readings.

    If the probabilities are honest, the points lie on the diagonal.

    Args:
        probabilities: (N, 10), for rows that were not trained on.
        digits: (N,) integers, the truth.
    """
    counts, sure, accuracy = reliability(probabilities, digits)
    filled = counts > 0
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--")
    # The bars show one standard error, because the share of right digits is uncertain if there are few.
    spread = np.sqrt(sure * (1 - sure) / np.maximum(1, counts))
    axes.errorbar(sure[filled], accuracy[filled], spread[filled], fmt="o-", color=BLUE, capsize=2)
    title = f"Calibration error {100 * calibration_error(probabilities, digits):.2f} points, {len(digits):,} digits"
    axes.set(ylim=(0, 1.03), ylabel="share that is right", title=title)
    below.bar(sure[filled], counts[filled], width=0.04, color=BLUE)
    below.set(yscale="log", xlabel="certainty", ylabel="digits", xlim=(0, 1.03))
    return figure


@rc_context(STYLE)
def plot_worst(
    pixels: np.ndarray,
    probabilities: np.ndarray,
    digits: np.ndarray,
    *,
    most: int = 20,
    columns: int = 10,
    numbers: np.ndarray | None = None,
) -> Figure:
    """Draw the mistakes that were made with the greatest certainty, the surest first.

    Args:
        pixels: (N, 784), 0–255.
        probabilities: (N, 10).
        digits: (N,) integers, the truth.
        most: the highest number of mistakes to draw.
        columns: the number of columns of the grid.
        numbers: (N,) the numbers of the rows in their file, to stand above each mistake; or None.
    """
    worst = surest_mistakes(probabilities, digits)[:most]
    if not len(worst):
        figure = Figure(figsize=(5, 0.5))
        axes = figure.subplots()  # a notebook shows no figure without axes
        axes.axis("off")
        axes.text(0, 0.4, f"No mistake among {len(digits):,} digits.")
        return figure
    titles = mistake_titles(probabilities[worst], digits[worst])
    if numbers is not None:
        titles = [f"row {number:,}\n{title}" for number, title in zip(numbers[worst], titles, strict=True)]
    return plot_digits(pixels[worst], titles, columns=min(columns, len(worst)))


def surest_mistakes(probabilities: np.ndarray, digits: np.ndarray) -> np.ndarray:
    """Return the rows that are misread, (M,) int64, the surest first."""
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != digits)
    return wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")]


def mistake_titles(probabilities: np.ndarray, digits: np.ndarray) -> list[str]:
    """Say for each row what the digit is, what it is read as, and how surely."""
    readings = zip(digits, probabilities.argmax(axis=1), probabilities.max(axis=1), strict=True)
    return [f"is {digit}\nread {read} ({certainty:.0%})" for digit, read, certainty in readings]


def _seaborn() -> Any:
    """Return seaborn. It imports pandas, which has to wait for a backend, see ``devices.import_backend``."""
    return import_module("seaborn")


def _colours(count: int) -> Sequence[Any]:
    return PALETTE[:count] if count <= len(PALETTE) else _seaborn().color_palette("husl", count)


@rc_context(STYLE)
def plot_trials(accuracies: Sequence[float | None]) -> Figure:
    """Draw the accuracy of each trial of a search, and the best one so far.

    Args:
        accuracies: 0–1, in the order of the trials; None for a trial that failed or was given up.
    """
    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    values = 100 * np.array([np.nan if value is None else value for value in accuracies])
    numbers = np.arange(1, len(values) + 1)
    axes.plot(numbers, values, "o", markersize=4, label="a trial")
    axes.step(numbers, np.fmax.accumulate(values), where="post", label="the best so far")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y")
    axes.set(xlabel="trial", ylabel="accuracy in percent")
    axes.legend(loc="lower right")
    return figure


@rc_context(STYLE)
def plot_shares(shares: Mapping[str, float]) -> Figure:
    """Draw what share of something each name has, 0–1, the largest first."""
    figure = Figure(figsize=(7, 0.6 + 0.35 * len(shares)), layout="constrained")
    axes = figure.subplots()
    ordered = sorted(shares.items(), key=lambda item: -item[1])
    _seaborn().barplot(x=[100 * share for _, share in ordered], y=[name for name, _ in ordered], color=BLUE, ax=axes)
    axes.set(xlabel="percent of the differences", ylabel="")
    return figure
