"""Classical methods on the 784 pixels. All but one are scikit-learn's.

A trained method is kept as plain arrays in ``model.npz``, and predictions are computed from them. Loading arrays runs
no code and works with every version of scikit-learn. A pickle may run code, and depends on the version.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import joblib
import numpy as np
from scipy.special import log_expit, softmax
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier

from kaggle_digits.digits import CLASSES, PIXELS, accuracy
from kaggle_digits.errors import DataError, InputError, RunError, did_you_mean
from kaggle_digits.files import read_arrays, write_arrays
from kaggle_digits.learners import Fitted, Training
from kaggle_digits.learners.distortion import nearest_distances
from kaggle_digits.learners.images import normalise_for, normalised, to_images
from kaggle_digits.recipe import Classical, FieldError
from kaggle_digits.run import MODEL_FILE, Predictor

if TYPE_CHECKING:
    from kaggle_digits.run import Run
    from kaggle_digits.strategy import Device

MAX_BYTES = 2**31
"""Maximum size of the arrays in a model.npz, in bytes: ten times the largest model of 42,000 rows."""

Learned = dict[str, np.ndarray]
"""What a method has learned: arrays by the names in ``_EXPECTED``."""

# The arrays of each method, with the kind of their numbers and their shape. A letter in a shape stands for any size;
# the same letter stands for the same size.
_EXPECTED: dict[str, dict[str, tuple[str, tuple[str | int, ...]]]] = {
    "DummyClassifier": {"prior": ("f", (CLASSES,)), "seed": ("iu", ())},
    "GaussianNB": {
        "prior": ("f", (CLASSES,)),
        "means": ("f", (CLASSES, PIXELS)),
        "variances": ("f", (CLASSES, PIXELS)),
    },
    "LogisticRegression": {"weights": ("f", (CLASSES, PIXELS)), "intercepts": ("f", (CLASSES,))},
    "SVC": {
        "vectors": ("f", ("V", PIXELS)),
        "counts": ("iu", (CLASSES,)),
        "weights": ("f", (CLASSES - 1, "V")),
        "intercepts": ("f", (CLASSES * (CLASSES - 1) // 2,)),
        "gamma": ("f", ()),
    },
    "KNeighborsClassifier": {
        "images": ("f", ("N", PIXELS)),
        "digits": ("iu", ("N",)),
        "neighbours": ("iu", ()),
    },
    "ImageDistortionModel": {
        "pixels": ("iu", ("N", PIXELS)),
        "digits": ("iu", ("N",)),
        "candidates": ("iu", ()),
        "power": ("f", ()),
    },
    "RandomForestClassifier": {
        "roots": ("iu", ("T",)),
        "features": ("iu", ("M",)),
        "thresholds": ("f", ("M",)),
        "children": ("iu", ("M", 2)),
        "shares": ("f", ("M", CLASSES)),
    },
}


@dataclass(frozen=True)
class ClassicalPredictor:
    """Predicts from unprocessed pixels with a trained method.

    Args:
        learned: what ``fit_estimator`` or ``load_estimator`` returned.
        recipe: the method.
    """

    learned: Learned
    recipe: Classical

    @property
    def parameters(self) -> int:
        """How many numbers the method keeps."""
        return sum(array.size for array in self.learned.values())

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """Predict the probability of every digit, (N, 10) float64, for every row of pixels (N, 784)."""
        return estimate_probabilities(self.recipe, self.learned, to_images(pixels, self.recipe).reshape(-1, PIXELS))

    def save(self, folder: Path) -> None:
        """Write what was learned into a run folder."""
        save_estimator(folder, self.learned)


def fit(training: Training) -> Fitted:
    """Train a method, and measure it on the held-out rows if there are any.

    Raises:
        DataError: a digit is missing.
    """
    recipe, rows, held_out = cast(Classical, training.recipe), training.rows, training.held_out
    started = time.perf_counter()
    images = to_images(normalise_for(recipe, rows.pixels), recipe).reshape(-1, PIXELS)
    learned = fit_estimator(recipe, images, rows.digits, seed=training.seed)
    metrics: dict[str, Any] = {"epoch": 1, "seconds": round(time.perf_counter() - started, 3)}
    predictor = normalised(recipe, ClassicalPredictor(learned, recipe))
    probabilities = None
    if held_out:
        started = time.perf_counter()
        probabilities = predictor.probabilities(held_out.pixels)
        metrics["validation_accuracy"] = accuracy(probabilities, held_out.digits)
        metrics["validation_seconds"] = round(time.perf_counter() - started, 3)
    return Fitted(predictor=predictor, epochs=[metrics], probabilities=probabilities)


def load(run: Run, device: Device, members: Sequence[Predictor]) -> Predictor:  # noqa: ARG001
    """Load a method from its run folder."""
    recipe = cast(Classical, run.recipe)
    return normalised(recipe, ClassicalPredictor(load_estimator(run.folder, recipe), recipe))


def check(recipe: Classical) -> None:
    """Check a method that may come from anyone.

    Raises:
        FieldError: there is no such method here, or its prediction would not fit its training.
    """
    # First the settings of each method that its predictor knows. Then those that are required, with their smallest and
    # largest value. Then those with only one possible value.
    methods = {
        "DummyClassifier": ("strategy",),
        "GaussianNB": ("var_smoothing",),
        "LogisticRegression": ("C", "solver", "max_iter", "tol"),
        "SVC": ("kernel", "C", "tol"),
        "KNeighborsClassifier": ("n_neighbors",),
        "ImageDistortionModel": ("candidates", "power"),
        "RandomForestClassifier": ("n_estimators", "criterion", "max_depth", "max_features", "min_samples_leaf"),
    }
    numbers: dict[str, dict[str, tuple[float, float]]] = {
        "KNeighborsClassifier": {"n_neighbors": (1, 1000)},
        "ImageDistortionModel": {"candidates": (1, 1000), "power": (0.1, 100.0)},
    }
    only = {"strategy": "stratified", "kernel": "rbf"}
    kind, settings = recipe.estimator
    if kind not in methods:
        raise FieldError(
            "estimator",
            f"{kind}: no such method here. Expected one of {', '.join(methods)}.{did_you_mean(kind, methods)}",
        )
    for name, (least, most) in numbers.get(kind, {}).items():
        value = settings.get(name)
        is_number = isinstance(value, int | type(least)) and not isinstance(value, bool)
        if not is_number or not least <= value <= most:  # type: ignore[operator]
            what = "a whole number" if isinstance(least, int) else "a number"
            raise FieldError("estimator", f"{kind} with {name} = {value!r}. Expected {what} from {least} to {most}.")
    if kind == "ImageDistortionModel" and (recipe.pixel_scale, recipe.pixel_offset) != (255, 0):
        raise FieldError("pixel_scale", f"{recipe.pixel_scale}. Expected 255 for {kind}, and no pixel_offset.")
    for name, value in settings.items():
        if name not in methods[kind] or value != only.get(name, value):
            known = (f"{each} = {only[each]}" if each in only else each for each in methods[kind])
            raise FieldError("estimator", f"{kind} with {name} = {value!r}. Expected some of {', '.join(known)}.")


def fit_estimator(recipe: Classical, images: np.ndarray, digits: np.ndarray, *, seed: int) -> Learned:
    """Train a method.

    Args:
        recipe: its ``estimator`` is the name of a scikit-learn class, or "ImageDistortionModel", and the settings.
        images: (N, 784) float32, scaled as the recipe says; from 0 to 1 for the image distortion model.
        digits: (N,) int64, 0–9. Every digit must occur, except for the image distortion model.
        seed: the seed for everything random.

    Returns:
        what was learned.

    Raises:
        DataError: a digit is missing.
        InputError: it cannot be trained with these settings.
    """
    kind, settings = recipe.estimator
    missing = sorted(set(range(CLASSES)) - set(digits.tolist()))
    if missing and kind != "ImageDistortionModel":
        raise DataError(
            f"{recipe.name}: no row is labelled {', '.join(map(str, missing))}. Expected rows of every digit. Add "
            "some, or train a network."
        )
    try:
        return _FIT[kind](images, digits, seed, settings)
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{recipe.name}: {kind} with {settings}: {error}. Expected settings that it takes.") from error


def _fit_random(images: np.ndarray, digits: np.ndarray, seed: int, settings: dict[str, Any]) -> Learned:
    fitted = DummyClassifier(**settings).fit(images, digits)
    return {"prior": fitted.class_prior_, "seed": np.array(seed)}


def _fit_bayes(images: np.ndarray, digits: np.ndarray, seed: int, settings: dict[str, Any]) -> Learned:  # noqa: ARG001
    fitted = GaussianNB(**settings).fit(images.astype(np.float64), digits)
    return {"prior": fitted.class_prior_, "means": fitted.theta_, "variances": fitted.var_}


def _fit_logistic(images: np.ndarray, digits: np.ndarray, seed: int, settings: dict[str, Any]) -> Learned:  # noqa: ARG001
    with warnings.catch_warnings():
        # The number of iterations is a setting, like epochs. A warning that more would fit closer is not needed.
        warnings.simplefilter("ignore", ConvergenceWarning)
        # Threads suffice, because the work is done outside Python's lock, and they need no copy of the images.
        with joblib.parallel_backend("threading"):
            fitted = OneVsRestClassifier(LogisticRegression(**settings), n_jobs=-1).fit(images, digits)
    return {
        "weights": np.concatenate([one.coef_ for one in fitted.estimators_]),
        "intercepts": np.concatenate([one.intercept_ for one in fitted.estimators_]),
    }


def _fit_svm(images: np.ndarray, digits: np.ndarray, seed: int, settings: dict[str, Any]) -> Learned:  # noqa: ARG001
    try:
        from sklearnex.svm import SVC  # the same method on all cores
    except ImportError:
        from sklearn.svm import SVC
    gamma = 1 / (PIXELS * images.var(dtype=np.float64))  # what scikit-learn calls "scale"
    fitted = SVC(gamma=gamma, **settings).fit(images, digits)
    return {
        "vectors": fitted.support_vectors_,
        "counts": fitted.n_support_,
        "weights": fitted.dual_coef_,
        "intercepts": fitted.intercept_,
        "gamma": np.array(gamma),
    }


def _fit_neighbours(images: np.ndarray, digits: np.ndarray, seed: int, settings: dict[str, Any]) -> Learned:  # noqa: ARG001
    return {"images": images, "digits": digits, "neighbours": np.array(settings["n_neighbors"])}


def _fit_distortion(images: np.ndarray, digits: np.ndarray, seed: int, settings: dict[str, Any]) -> Learned:  # noqa: ARG001
    # As bytes, so that a file with all rows stays small.
    pixels = np.rint(images * 255).astype(np.uint8)
    return {"pixels": pixels, "digits": digits, **{name: np.array(value) for name, value in settings.items()}}


def _fit_forest(images: np.ndarray, digits: np.ndarray, seed: int, settings: dict[str, Any]) -> Learned:
    fitted = RandomForestClassifier(random_state=seed, n_jobs=-1, **settings).fit(images, digits)
    trees = [one.tree_ for one in fitted.estimators_]
    sizes = np.array([tree.node_count for tree in trees])
    roots = np.cumsum(sizes) - sizes
    children = []
    for tree, root in zip(trees, roots, strict=True):
        both = np.stack([tree.children_left, tree.children_right], axis=1)
        itself = np.arange(tree.node_count)[:, None]
        # A leaf points to itself.
        children.append(np.where(both < 0, itself, both) + root)
    return {
        "roots": roots,
        "features": np.maximum(np.concatenate([tree.feature for tree in trees]), 0).astype(np.int16),
        "thresholds": np.concatenate([tree.threshold for tree in trees]),
        "children": np.concatenate(children).astype(np.int32),
        "shares": np.concatenate([tree.value[:, 0] for tree in trees]).astype(np.float32),
    }


_FIT: dict[str, Callable[[np.ndarray, np.ndarray, int, dict[str, Any]], Learned]] = {
    "DummyClassifier": _fit_random,
    "GaussianNB": _fit_bayes,
    "LogisticRegression": _fit_logistic,
    "SVC": _fit_svm,
    "KNeighborsClassifier": _fit_neighbours,
    "ImageDistortionModel": _fit_distortion,
    "RandomForestClassifier": _fit_forest,
}


def estimate_probabilities(recipe: Classical, learned: Learned, images: np.ndarray) -> np.ndarray:
    """Predict the probability of every digit for every row, from what a method has learned.

    Args:
        recipe: the method.
        learned: what ``fit_estimator`` or ``load_estimator`` returned.
        images: (N, 784) float32, scaled as the recipe says.

    Returns:
        (N, 10) float64; rows sum to 1. The first of the likeliest digits is the one that scikit-learn's ``predict``
        gives. A support vector machine gives each digit its share of the 45 votes. The random method gives its guess
        the probability 1. The image distortion model's probabilities are proportional to a power of 1 / distance to
        the nearest row of each digit.
    """
    return _PREDICT[recipe.estimator[0]](learned, images)


def _guess(learned: Learned, images: np.ndarray) -> np.ndarray:
    prior = learned["prior"] / learned["prior"].sum()
    digits = np.random.default_rng(int(learned["seed"])).choice(CLASSES, size=len(images), p=prior)
    return np.eye(CLASSES)[digits]


def _bayes(learned: Learned, images: np.ndarray) -> np.ndarray:
    precisions, means = 1 / learned["variances"], learned["means"]
    # Σ (x − µ)² / σ² is multiplied out into matrix products, to avoid an array of rows × digits × pixels.
    wide = images.astype(np.float64)
    squares = np.square(wide) @ precisions.T - 2 * wide @ (means * precisions).T + (means**2 * precisions).sum(axis=1)
    return softmax(np.log(learned["prior"]) - (np.log(learned["variances"]).sum(axis=1) + squares) / 2, axis=1)


def _logistic(learned: Learned, images: np.ndarray) -> np.ndarray:
    decisions = (images @ learned["weights"].T + learned["intercepts"]).astype(np.float64)
    # Each digit's own probability is divided by their sum. Logarithms keep the precision near 0 and 1.
    return softmax(log_expit(decisions), axis=1)


def _svm(learned: Learned, images: np.ndarray) -> np.ndarray:
    vectors, weights, gamma = learned["vectors"], learned["weights"], float(learned["gamma"])
    distances = np.square(images).sum(axis=1)[:, None] + np.square(vectors).sum(axis=1) - 2 * images @ vectors.T
    kernel = np.exp(-gamma * distances)
    ends = np.cumsum(learned["counts"])
    of_digit = [slice(end - count, end) for count, end in zip(learned["counts"], ends, strict=True)]
    votes = np.zeros((len(images), CLASSES))
    # There is one machine for each pair of digits. A vector's weight for it lies in the row of the other digit, counted
    # without the vector's own digit.
    for (first, second), intercept in zip(combinations(range(CLASSES), 2), learned["intercepts"], strict=True):
        one, two = of_digit[first], of_digit[second]
        decision = kernel[:, one] @ weights[second - 1, one] + kernel[:, two] @ weights[first, two] + intercept
        votes[:, first] += decision > 0
        votes[:, second] += decision <= 0
    return votes / votes.sum(axis=1, keepdims=True)


def _neighbours(learned: Learned, images: np.ndarray) -> np.ndarray:
    method = KNeighborsClassifier(int(learned["neighbours"]), algorithm="brute", n_jobs=-1)
    return method.fit(learned["images"], learned["digits"]).predict_proba(images)


def _distortion(learned: Learned, images: np.ndarray) -> np.ndarray:
    references = learned["pixels"].astype(np.float32) / 255
    distances = nearest_distances(images, references, learned["digits"], int(learned["candidates"]))
    # An image that was trained on is at distance 0 from itself.
    return softmax(-learned["power"] * np.log(np.maximum(distances, 1e-6)), axis=1)


def _forest(learned: Learned, images: np.ndarray) -> np.ndarray:
    features, thresholds, children = learned["features"], learned["thresholds"], learned["children"]
    rows = np.arange(len(images))
    probabilities = np.zeros((len(images), CLASSES))
    for root in learned["roots"]:
        node = np.full(len(images), root)
        while True:
            right = images[rows, features[node]] > thresholds[node]
            below = children[node, right.astype(np.int8)]
            if np.array_equal(below, node):
                break
            node = below
        probabilities += learned["shares"][node]
    return probabilities / len(learned["roots"])


def _in_batches(method: Callable[[Learned, np.ndarray], np.ndarray]) -> Callable[[Learned, np.ndarray], np.ndarray]:
    """Apply a method to 1,000 rows at a time, because its intermediate results for each row are large."""

    def predict(learned: Learned, images: np.ndarray) -> np.ndarray:
        batches = range(0, len(images), 1000)
        return np.concatenate([method(learned, images[first : first + 1000]) for first in batches])

    return predict


_PREDICT: dict[str, Callable[[Learned, np.ndarray], np.ndarray]] = {
    "DummyClassifier": _guess,
    "GaussianNB": _bayes,
    "LogisticRegression": _logistic,
    "SVC": _in_batches(_svm),
    "KNeighborsClassifier": _neighbours,
    "ImageDistortionModel": _in_batches(_distortion),
    "RandomForestClassifier": _in_batches(_forest),
}


def save_estimator(folder: Path, learned: Learned) -> None:
    """Write what a method has learned into a run folder.

    Args:
        folder: the run folder.
        learned: what ``fit_estimator`` returned.
    """
    write_arrays(folder / MODEL_FILE, learned, compressed=True)


def load_estimator(folder: Path, recipe: Classical) -> Learned:
    """Read what a method has learned.

    Args:
        folder: a run folder; the file in it may come from anyone.
        recipe: the method.

    Returns:
        the arrays, checked so that predicting with them ends and gives probabilities.

    Raises:
        RunError: the file does not hold the arrays of this method, or their contents are impossible.
    """
    file, kind = folder / MODEL_FILE, recipe.estimator[0]
    if kind not in _EXPECTED:
        raise RunError(f"{folder}: {kind!r} is no method of this package. Expected one of {', '.join(_EXPECTED)}.")
    try:
        learned = read_arrays(file, {}, others=_EXPECTED[kind], most=MAX_BYTES)
        _check(kind, learned)
    except (OSError, ValueError) as error:
        raise RunError(
            f"{file}: cannot be loaded ({error}). Expected the arrays that training wrote. Train it again."
        ) from error
    return learned


def _check(kind: str, learned: Learned) -> None:
    """Refuse arrays that the method could not have learned, because predicting with them might fail or never end."""
    sizes: dict[str, int] = {}
    for name, (numbers, shape) in _EXPECTED[kind].items():
        array = learned[name]
        fits = len(array.shape) == len(shape) and all(
            size == (sizes.setdefault(wanted, size) if isinstance(wanted, str) else wanted)
            for size, wanted in zip(array.shape, shape, strict=True)
        )
        if not fits or array.dtype.kind not in numbers or array.dtype.itemsize > 8 or not np.isfinite(array).all():
            raise ValueError(f"{name} is {array.dtype} {array.shape}, or not all of it is finite")
    for name in {"prior", "variances", "gamma", "counts"} & set(learned):
        if not (learned[name] > 0).all():
            raise ValueError(f"not all of {name} is above 0")
    if kind == "DummyClassifier" and not (
        learned["seed"] >= 0 and learned["prior"].max() <= 1 and learned["prior"].sum() < 2
    ):
        raise ValueError("its seed or its shares are not possible")
    if kind == "SVC" and learned["counts"].sum() != sizes["V"]:
        raise ValueError("its support vectors do not add up")
    if kind == "KNeighborsClassifier" and not (
        set(learned["digits"].tolist()) == set(range(CLASSES)) and 0 < learned["neighbours"] <= sizes["N"]
    ):
        raise ValueError("its digits or its number of neighbours are not possible")
    if kind == "ImageDistortionModel" and not (
        set(learned["digits"].tolist()) <= set(range(CLASSES))
        and learned["pixels"].dtype == np.uint8
        and 0 < learned["pixels"].size < MAX_BYTES / 16  # room for float32 images and their gradients
        and 0 < learned["candidates"] <= 1000
        and 0 < learned["power"] <= 100
    ):
        raise ValueError("its digits, pixels, number of candidates or power are not possible")
    if kind == "RandomForestClassifier":
        _check_forest(learned["roots"], learned["children"].astype(np.int64), learned["features"])


def _check_forest(roots: np.ndarray, children: np.ndarray, features: np.ndarray) -> None:
    """Refuse malformed trees. Every step must lead further down the same tree, and look at a pixel that exists."""
    nodes = np.arange(len(children))
    if not (roots.size and roots[0] == 0 and (np.diff(roots) > 0).all() and roots[-1] < len(nodes)):
        raise ValueError("its roots are not in order")
    ends = np.append(roots[1:], len(nodes))[np.searchsorted(roots, nodes, side="right") - 1]
    is_leaf = (children == nodes[:, None]).all(axis=1)
    if not (is_leaf | ((children > nodes[:, None]) & (children < ends[:, None])).all(axis=1)).all():
        raise ValueError("its trees are not trees")
    if not (features.min() >= 0 and features.max() < PIXELS):
        raise ValueError("it looks at pixels that are not there")
