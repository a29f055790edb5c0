"""Classical methods: predictions equal scikit-learn's, and a file from a stranger can do no harm."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hostile import Touch, header, npz
from run_folder import write_run
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC

from kaggle_digits.data import TrainingRows, find_source, load_train
from kaggle_digits.errors import DataError, DeviceError, RunError
from kaggle_digits.learners import Context, load_run
from kaggle_digits.learners.classical import (
    ClassicalPredictor,
    estimate_probabilities,
    fit_estimator,
    load_estimator,
    save_estimator,
)
from kaggle_digits.learners.distortion import nearest_distances
from kaggle_digits.learners.images import normalise_for, normalised, to_images
from kaggle_digits.learners.upright import normalise_pixels
from kaggle_digits.recipe import Classical
from kaggle_digits.recipes import RECIPES
from kaggle_digits.strategy import device_of
from kaggle_digits.train import train_run

CLASSICAL = {name: recipe for name, recipe in RECIPES.items() if isinstance(recipe, Classical)}


def small(name: str) -> Classical:
    """Return the recipe of that name with less work to do."""
    changes = {"random-forest": {"n_estimators": 7}, "logistic-regression": {"max_iter": 30}}
    kind, settings = CLASSICAL[name].estimator
    return replace(CLASSICAL[name], estimator=(kind, settings | changes.get(name, {})))


@pytest.fixture(scope="module")
def split() -> tuple[TrainingRows, TrainingRows]:
    """Return rows to train on and other rows."""
    rows = load_train(find_source("sample"))
    return rows.take(np.arange(300)), rows.take(np.arange(300, 700))


def without_1_and_8(rows: TrainingRows) -> TrainingRows:
    return rows.take(np.flatnonzero((rows.digits != 1) & (rows.digits != 8)))


def images(rows: TrainingRows, recipe: Classical) -> np.ndarray:
    return to_images(normalise_for(recipe, rows.pixels), recipe).reshape(-1, 784)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("naive-bayes", GaussianNB()),
        ("logistic-regression", OneVsRestClassifier(LogisticRegression(C=100, max_iter=30))),
        ("knn", KNeighborsClassifier(5)),
        ("random-forest", RandomForestClassifier(7, random_state=3)),
        ("svm", SVC(C=1.0, kernel="rbf", gamma="scale")),
    ],
)
def test_probabilities_and_digits_are_those_of_scikit_learn(split, name, reference):
    training, others = split
    recipe = small(name)
    learned = fit_estimator(recipe, images(training, recipe), training.digits, seed=3)
    probabilities = estimate_probabilities(recipe, learned, images(others, recipe))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)

    dtype = np.float64 if name == "naive-bayes" else np.float32
    reference.fit((training.pixels / 255).astype(dtype), training.digits)
    expected = reference.predict((others.pixels / 255).astype(dtype))
    np.testing.assert_array_equal(probabilities.argmax(axis=1), expected)
    assert (expected == others.digits).mean() > 0.75
    if hasattr(reference, "predict_proba"):
        expected = reference.predict_proba((others.pixels / 255).astype(dtype))
        np.testing.assert_allclose(probabilities, expected, atol=1e-5)


def test_image_distortion_probabilities_are_inverse_powers_of_distances(split):
    training, others = split
    recipe = CLASSICAL["idm"]
    learned = fit_estimator(recipe, images(training, recipe), training.digits, seed=0)
    own, strange = images(training, recipe)[:5], images(others, recipe)[:50]
    # A training image has the distance 0 to itself, and every other image is farther away.
    np.testing.assert_allclose(estimate_probabilities(recipe, learned, own), np.eye(10)[training.digits[:5]], atol=1e-6)
    probabilities = estimate_probabilities(recipe, learned, strange)
    distances = nearest_distances(strange, images(training, recipe), training.digits, candidates=25)
    inverse = 1 / distances**8
    np.testing.assert_allclose(probabilities, inverse / inverse.sum(axis=1, keepdims=True), rtol=1e-6)


def test_digit_that_the_image_distortion_model_never_saw_is_impossible(split):
    training, others = split
    recipe = CLASSICAL["idm"]
    kept = without_1_and_8(training)
    learned = fit_estimator(recipe, images(kept, recipe), kept.digits, seed=0)
    save_estimator(Path(), learned)
    probabilities = estimate_probabilities(recipe, load_estimator(Path(), recipe), images(others, recipe)[:20])
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert (probabilities[:, [1, 8]] == 0).all()
    assert (probabilities[:, [0, 9]] > 0).all()


def test_support_vector_machines_are_the_same_without_the_faster_library(split, monkeypatch):
    training, others = split
    recipe = small("svm")
    first = fit_estimator(recipe, images(training, recipe), training.digits, seed=0)
    monkeypatch.setitem(sys.modules, "sklearnex.svm", None)
    second = fit_estimator(recipe, images(training, recipe), training.digits, seed=0)
    votes = [estimate_probabilities(recipe, learned, images(others, recipe)) for learned in (first, second)]
    assert (votes[0].argmax(axis=1) == votes[1].argmax(axis=1)).mean() >= 0.995


def test_random_guesses_follow_the_training_rows(split):
    training, _ = split
    kept = training.take(np.flatnonzero((training.digits != 1) | (np.arange(300) % 4 == 0)))
    recipe = CLASSICAL["random"]
    learned = fit_estimator(recipe, images(kept, recipe), kept.digits, seed=5)
    guessed = estimate_probabilities(recipe, learned, np.zeros((50_000, 784), np.float32)).argmax(axis=1)
    expected = DummyClassifier(strategy="prior").fit(kept.pixels, kept.digits).class_prior_
    np.testing.assert_allclose(np.bincount(guessed) / 50_000, expected, atol=0.006)
    again = estimate_probabilities(recipe, learned, np.zeros((50_000, 784), np.float32)).argmax(axis=1)
    np.testing.assert_array_equal(guessed, again)


@pytest.mark.parametrize("name", CLASSICAL)
def test_trained_form_survives_the_run_folder(split, name):
    training, others = split
    others = others.take(np.arange(100 if name == "idm" else 400))  # it takes long for an image
    recipe = small(name)
    device = device_of(recipe)
    job = {"held_out": others, "context": Context(device=device, seed=1, source="test")}
    trained = train_run(recipe, training, Path("run"), **job)
    assert sorted(path.name for path in Path("run").iterdir()) == ["model.npz", "run.json", "validation.npz"]
    loaded = load_run(Path("run"), device)
    assert loaded.recipe == recipe
    expected = trained.predict(others.pixels)
    np.testing.assert_array_equal(loaded.predict(others.pixels), expected)
    assert trained.epochs[0]["validation_accuracy"] == (expected.argmax(axis=1) == others.digits).mean()
    assert "tensorflow" not in trained.versions
    learned = load_estimator(Path("run"), recipe)
    expected = estimate_probabilities(recipe, learned, images(others, recipe))
    np.testing.assert_array_equal(loaded.predict(others.pixels), expected)
    if name == "idm":  # it keeps the training rows, normalised by the recipe
        upright = normalise_pixels(training.pixels, deslant=True, spread=4.2)
        np.testing.assert_array_equal(learned["pixels"], upright)
    # A finished run is returned and not trained again.
    before = Path("run/model.npz").stat().st_mtime_ns
    train_run(recipe, training, Path("run"), resume=True, **job)
    assert Path("run/model.npz").stat().st_mtime_ns == before


def test_no_rows_give_no_predictions(split):
    training, _ = split
    for name in CLASSICAL:
        recipe = small(name)
        learned = fit_estimator(recipe, images(training, recipe), training.digits, seed=0)
        predictor = normalised(recipe, ClassicalPredictor(learned, recipe))
        assert predictor.probabilities(np.empty((0, 784), np.uint8)).shape == (0, 10)


def test_missing_digit_is_refused(split):
    kept = without_1_and_8(split[0])
    with pytest.raises(DataError, match=r"^svm: no row is labelled 1, 8\. .* Add some, or train a network\.$"):
        fit_estimator(CLASSICAL["svm"], images(kept, CLASSICAL["svm"]), kept.digits, seed=0)


def test_accelerator_is_refused():
    with pytest.raises(DeviceError, match=r"^--device gpu: svm is a classical method, .* Leave --device out\.$"):
        device_of(CLASSICAL["svm"], "gpu")


def test_trained_form_that_carries_code_is_refused_and_not_run(split):
    recipe = CLASSICAL["naive-bayes"]
    write_run(".", recipe)
    np.savez("model.npz", prior=np.array([Touch()], object), means=np.zeros((10, 784)), variances=np.ones((10, 784)))
    with pytest.raises(RunError, match=r"^model.npz: cannot be loaded \(.*Train it again\.$"):
        load_run(Path(), device_of(recipe))
    assert not Path("was-run").exists()


def put(index, value):
    def change(array: np.ndarray) -> np.ndarray:
        array[index] = value
        return array

    return change


@pytest.mark.parametrize(
    ("recipe", "array", "change"),
    [
        ("random", "prior", lambda a: a[:9]),
        ("random", "prior", put(0, -0.1)),
        ("random", "seed", lambda a: a - 1),
        ("naive-bayes", "variances", put((0, 0), 0)),
        ("naive-bayes", "means", put((0, 0), np.nan)),
        ("logistic-regression", "weights", lambda a: a.astype("U8")),
        ("svm", "counts", put(0, 100_000)),
        ("svm", "counts", lambda a: np.concatenate([[-1, a[:2].sum() + 1], a[2:]])),
        ("svm", "vectors", lambda a: a[1:]),
        ("svm", "counts", lambda a: a.astype(float)),
        ("knn", "digits", put(0, 11)),
        ("knn", "digits", lambda a: np.minimum(a, 8)),
        ("knn", "neighbours", put((), 0)),
        ("knn", "neighbours", lambda a: np.array(0.5)),
        ("idm", "digits", put(0, 10)),
        ("idm", "digits", lambda a: a[1:]),
        ("idm", "pixels", lambda a: a.astype(np.int64)),
        ("idm", "pixels", lambda a: a[:0]),
        ("idm", "candidates", put((), 0)),
        ("idm", "candidates", put((), 10**9)),
        ("idm", "power", put((), -1)),
        ("idm", "power", put((), 1000)),
        ("random", "prior", lambda a: np.full(10, 1e308)),
        ("random", "prior", lambda a: a.astype(np.longdouble)),
        # A forest with a branch that leads in a circle, out of the forest or into the next tree, or that tests a pixel
        # that does not exist; and a forest whose trees are one long chain.
        ("random-forest", "children", put((5, 0), 0)),
        ("random-forest", "children", put((0, 1), 10**6)),
        ("random-forest", "features", put(0, 784)),
        ("random-forest", "children", lambda a: np.where(a == a[0, 1], len(a) - 1, a)),
        ("random-forest", "features", lambda a: a.astype(np.float32)),
        ("random-forest", "roots", put(0, -1)),
        ("random-forest", "roots", lambda a: np.zeros(7, np.int64)),
    ],
)
def test_impossible_arrays_are_refused(split, recipe, array, change):
    training, _ = split
    learned = fit_estimator(small(recipe), images(training, small(recipe)), training.digits, seed=0)
    save_estimator(Path(), learned)
    load_estimator(Path(), small(recipe))
    save_estimator(Path(), learned | {array: change(learned[array].copy())})
    with pytest.raises(RunError, match=r"^model.npz: cannot be loaded \(.*Train it again\.$"):
        load_estimator(Path(), small(recipe))


def test_broken_or_other_files_are_refused(split):
    training, _ = split
    recipe = small("naive-bayes")
    save_estimator(Path(), fit_estimator(recipe, images(training, recipe), training.digits, seed=0))
    whole = Path("model.npz").read_bytes()
    np.save("other.npy", np.zeros(3))
    raw, giant = npz(dict.fromkeys(("prior", "means", "variances"), b"no array")), npz({"prior.npy": header((10**12,))})
    encrypted = bytearray(whole)
    encrypted[6] |= 1
    encrypted[whole.index(b"PK\x01\x02") + 8] |= 1
    broken = (b"", b"not an archive", whole[: len(whole) // 2], whole[:200] + bytes(500) + whole[700:])
    for content in (Path("other.npy").read_bytes(), raw, giant, bytes(encrypted), *broken):
        Path("model.npz").write_bytes(content)
        with pytest.raises(RunError, match=r"^model.npz: cannot be loaded \("):
            load_estimator(Path(), recipe)
    Path("model.npz").write_bytes(whole)
    with pytest.raises(RunError, match=r"it holds other arrays than expected: intercepts, means, prior"):
        load_estimator(Path(), small("logistic-regression"))


def test_bomb_is_not_unpacked(monkeypatch):
    monkeypatch.setattr("kaggle_digits.learners.classical.MAX_BYTES", 10**6)
    np.savez_compressed("model.npz", prior=np.zeros(10**6), seed=np.array(0))
    assert Path("model.npz").stat().st_size < 10**5
    with pytest.raises(RunError, match=r"more than 1,000,000 bytes"):
        load_estimator(Path(), CLASSICAL["random"])


def test_rows_that_float32_cannot_tell_apart_are_read_as_scikit_learn_reads_them():
    weights = np.zeros((10, 784), np.float32)
    weights[:, 0] = [-200, -150, 20, 25, *[-300] * 6]
    learned = {"weights": weights, "intercepts": np.zeros(10, np.float32)}
    images = np.zeros((1, 784), np.float32)
    images[0, 0] = 1
    # Two digits are almost certain. In float32 both would get the probability 1.
    probabilities = estimate_probabilities(CLASSICAL["logistic-regression"], learned, images)
    assert probabilities.argmax() == 3
    np.testing.assert_allclose(probabilities[0, [2, 3]], 0.5, atol=1e-6)
    # Here no digit is likely. In float32 the sum of all probabilities would be 0.
    hopeless = learned | {"intercepts": np.full(10, -1000.0)}
    probabilities = estimate_probabilities(CLASSICAL["logistic-regression"], hopeless, images)
    assert probabilities.argmax() == 3
    assert probabilities.sum() == pytest.approx(1)
