"""Plots: each plot shows the values it was given."""

from __future__ import annotations

import numpy as np
from sklearn import metrics

from kaggle_digits.analysis import plots


def texts(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_label_counts_are_numpys():
    digits = np.array([0, 0, 1, 9, 9, 9])
    (axes,) = plots.plot_label_counts(digits).axes
    assert [bar.get_height() for bar in axes.patches] == np.bincount(digits, minlength=10).tolist()
    assert texts(axes) == ["2", "1", "0", "0", "0", "0", "0", "0", "0", "3"]


def test_digits_are_drawn_dark_on_white_with_their_titles():
    pixels = np.zeros((3, 784), np.uint8)
    pixels[1, 28 * 5 + 7] = 255
    figure = plots.plot_digits(pixels, [4, 5, 6], columns=2)
    assert [axes.get_title() for axes in figure.axes] == ["4", "5", "6", ""]
    (image,) = figure.axes[1].images
    assert image.get_array()[5, 7] == 255
    assert image.get_cmap().name == "gray_r"


def test_curves_have_a_point_for_every_epoch():
    epochs = [
        {"epoch": 1, "loss": 0.5, "accuracy": 0.8, "validation_accuracy": 0.85},
        {"epoch": 2, "loss": 0.2, "accuracy": 0.9, "validation_accuracy": 0.95},
    ]
    losses, accuracies = plots.plot_curves({"ours": epochs}).axes
    assert losses.lines[0].get_ydata().tolist() == [0.5, 0.2]
    assert [line.get_ydata().tolist() for line in accuracies.lines] == [[0.8, 0.9], [0.85, 0.95]]


def test_confusion_counts_are_scikit_learns():
    rng = np.random.default_rng(0)
    probabilities, digits = rng.random((200, 10)), rng.integers(0, 10, 200)
    (axes,) = plots.plot_confusion(probabilities, digits).axes
    expected = metrics.confusion_matrix(digits, probabilities.argmax(axis=1), labels=range(10))
    assert [int(text) for text in texts(axes)] == expected.ravel().tolist()
    assert axes.get_title() == f"{200 - np.trace(expected)} mistakes in 200 held-out rows"


def test_worst_are_the_mistakes_it_was_surest_of():
    digits = np.array([0, 1, 2, 3])
    probabilities = np.full((4, 10), 0.01)
    for row, (read, certainty) in enumerate([(0, 0.9), (5, 0.6), (7, 0.8), (4, 0.5)]):
        probabilities[row, read] = certainty
    figure = plots.plot_worst(np.zeros((4, 784)), probabilities, digits, most=2)
    assert [axes.get_title() for axes in figure.axes] == ["is 2\nread 7 (80%)", "is 1\nread 5 (60%)"]
    none = plots.plot_worst(np.zeros((2, 784)), np.eye(10)[[3, 4]], np.array([3, 4]))
    assert texts(none.axes[0]) == ["No mistake among 2 digits."]


def test_reliability_is_drawn_by_certainty():
    # Nine of ten at 0.9 are right, and one of two at 0.5.
    probabilities = np.full((12, 10), 0.1 / 9)
    probabilities[:10, 0] = 0.9
    probabilities[10:] = 0.5 / 9
    probabilities[10:, 0] = 0.5
    figure = plots.plot_reliability(probabilities, np.array([0] * 9 + [1, 0, 1]))
    axes, below = figure.axes
    drawn = axes.containers[0].lines[0]
    np.testing.assert_allclose(drawn.get_xdata(), [0.5, 0.9])
    np.testing.assert_allclose(drawn.get_ydata(), [0.5, 0.9])
    assert [bar.get_height() for bar in below.patches] == [2, 10]
    assert axes.get_title() == "Calibration error 0.00 points, 12 digits"
    figure.canvas.draw()


def test_confusion_matrices_beside_each_other_share_their_colours():
    digits = np.arange(10).repeat(10)
    few, many = digits.copy(), digits.copy()
    few[0], many[:9] = 1, 1
    drawn = plots.plot_confusions({"few": (np.eye(10)[few], digits), "many": (np.eye(10)[many], digits)})
    limits = [figure.axes[0].collections[0].get_clim() for figure in drawn.values()]
    assert limits == [(0, 9), (0, 9)]
    assert drawn["few"].axes[0].get_title() == "1 mistake in 100 held-out rows"
