"""Distortion: distances equal the definition of the image distortion model, and its neighbours read digits well."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import sobel
from sklearn.neighbors import KNeighborsClassifier

from kaggle_digits.data import find_source, load_train
from kaggle_digits.learners.distortion import distortion_distances, image_gradients, nearest_distances


def sample(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images of the sample, (count, 784) float32 from 0 to 1, and their digits."""
    rows = load_train(find_source("sample")).take(np.arange(count))
    return rows.pixels.astype(np.float32) / 255, rows.digits


def by_definition(image: np.ndarray, reference: np.ndarray) -> float:
    """Sum over all pixels the least squared difference of 3×3 Sobel gradients, up to two pixels away."""

    def gradients(flat: np.ndarray) -> np.ndarray:
        square = np.pad(flat.reshape(28, 28).astype(float), 1, mode="symmetric")
        inner = np.stack([sobel(square, axis=1), sobel(square, axis=0)])[:, 1:-1, 1:-1] / 4
        return np.pad(inner, ((0, 0), (3, 3), (3, 3)))

    first, second, total = gradients(image), gradients(reference), 0.0
    for y in range(3, 31):
        for x in range(3, 31):
            own = first[:, y - 1 : y + 2, x - 1 : x + 2]
            total += min(
                np.square(own - second[:, y + down - 1 : y + down + 2, x + right - 1 : x + right + 2]).sum()
                for down in range(-2, 3)
                for right in range(-2, 3)
            )
    return total


def test_distances_are_those_of_the_definition():
    images, _ = sample(4)
    gradients = image_gradients(images)
    expected = [by_definition(images[0], images[other]) for other in range(4)]
    assert expected[0] == 0 < min(expected[1:])
    np.testing.assert_allclose(distortion_distances(gradients[0], gradients), expected, rtol=1e-4)


def test_shifts_within_two_pixels_cost_nothing():
    (image,), _ = sample(1)
    moved = [np.roll(image.reshape(28, 28), by, axis=(0, 1)).reshape(784) for by in ((0, 0), (2, -1), (4, 0))]
    still, near, far = distortion_distances(image_gradients(image[None])[0], image_gradients(np.stack(moved)))
    assert still == near == 0 < far


def test_nearest_of_every_digit_is_found_among_its_candidates():
    images, digits = sample(300)
    found = nearest_distances(images[:20], images[20:], digits[20:], candidates=5)
    gradients = image_gradients(images)
    for image in range(20):
        for digit in range(10):
            own = 20 + np.flatnonzero(digits[20:] == digit)
            euclidean = np.square(images[own] - images[image]).sum(axis=1)
            candidates = own[np.argsort(euclidean)[:5]]
            expected = distortion_distances(gradients[image], gradients[candidates]).min()
            np.testing.assert_allclose(found[image, digit], expected, rtol=1e-4)
    # With more candidates than there are rows, every row is compared.
    everything = nearest_distances(images[:20], images[20:], digits[20:], candidates=10_000)
    assert (everything <= found * (1 + 1e-4)).all()


def test_it_reads_more_than_euclidean_neighbours_do():
    images, digits = sample(1400)
    training, others = slice(0, 700), slice(700, 1400)
    read = nearest_distances(images[others], images[training], digits[training], candidates=10).argmin(axis=1)
    neighbour = KNeighborsClassifier(1).fit(images[training], digits[training]).predict(images[others])
    assert (read == digits[others]).mean() > (neighbour == digits[others]).mean() > 0.9
