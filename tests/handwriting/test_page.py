"""Page: digits are found on pages as a camera sees them, and prepared as the makers of MNIST prepared theirs."""

from __future__ import annotations

import numpy as np
import pytest
from drawn import STROKES, draw_page
from PIL import Image, ImageDraw

from kaggle_digits.data import find_source, load_train
from kaggle_digits.handwriting.page import find_digits, find_single, level_paper, normalise_digit

ROWS = ["0123456789", "9876543210", "27182"]


def lengths(found) -> list[int]:
    """Return the number of digits in each row."""
    rows = [each.row for each in found]
    return [rows.count(row) for row in range(max(rows, default=-1) + 1)]


def sides(image: np.ndarray) -> tuple[int, int]:
    """Return the height and width of the ink in a (784,) image."""
    ink = image.reshape(28, 28) > 90
    return int(np.ptp(np.flatnonzero(ink.any(axis=1)))) + 1, int(np.ptp(np.flatnonzero(ink.any(axis=0)))) + 1


def centre(image: np.ndarray) -> tuple[float, float]:
    """Return the centre of mass in pixels from the upper left corner; (28, 28) is the lower right corner."""
    ink = image.reshape(28, 28).astype(float)
    along = np.arange(28) + 0.5
    return float(ink.sum(axis=1) @ along / ink.sum()), float(ink.sum(axis=0) @ along / ink.sum())


@pytest.mark.parametrize("ruling", ["plain", "ruled", "squared"])
@pytest.mark.parametrize(("pen", "turn"), [(3, 0), (5, 3), (9, -5)])
def test_all_digits_of_a_page_are_found_in_reading_order(ruling, pen, turn):
    found = find_digits(draw_page(ROWS, pen=pen, turn=turn, ruling=ruling, seed=1))
    assert lengths(found) == [10, 10, 5]
    for row in range(3):
        lefts = [each.box[0] for each in found if each.row == row]
        assert lefts == sorted(lefts)


def test_boxes_are_where_the_digits_are():
    page = np.ones((200, 300), np.float32)
    page[50:110, 40:48] = 0.2
    page[50:110, 200:210] = 0.2
    assert [each.box for each in find_digits(page)] == [(40, 50, 48, 110), (200, 50, 210, 110)]


def test_light_ink_on_dark_paper_is_read_like_dark_on_light():
    page = draw_page(ROWS, seed=2)
    dark, light = find_digits(page), find_digits(1 - page)
    assert [each.box for each in dark] != []
    assert lengths(light) == lengths(dark) == [10, 10, 5]


def test_a_large_photograph_has_boxes_in_its_own_pixels():
    page = draw_page(["123"], size=60)
    large = np.kron(page, np.ones((10, 10), np.float32))
    for one, other in zip(find_digits(page), find_digits(large), strict=True):
        np.testing.assert_allclose(np.multiply(one.box, 10), other.box, atol=25)


def test_what_is_no_digit_is_left_out():
    picture = Image.fromarray((255 * draw_page(["123", "456"], size=80)).astype(np.uint8))
    canvas = ImageDraw.Draw(picture)
    width, height = picture.size
    canvas.ellipse((width - 70, 20, width - 30, 58), fill=40)  # a blot
    canvas.line((20, height - 30, 200, height - 26), fill=40, width=4)  # a dash
    canvas.circle((20, 20), 4, fill=40)  # a dot
    canvas.rectangle((0, 0, width, 5), fill=20)  # the table beyond the paper
    canvas.rectangle((0, 0, 6, height), fill=20)
    assert lengths(find_digits(np.asarray(picture, np.float32) / 255)) == [3, 3]


def test_parts_of_one_digit_belong_together():
    page = np.ones((200, 300), np.float32)
    page[50:58, 60:100] = 0.2  # the bar of a 5
    page[63:120, 60:68] = 0.2
    page[50:120, 200:208] = 0.2
    assert [each.box for each in find_digits(page)] == [(60, 50, 100, 120), (200, 50, 208, 120)]


def test_any_drawing_is_read_without_a_fault():
    rng = np.random.default_rng(0)
    for _ in range(60):
        width, height = (int(side) for side in np.exp(rng.uniform(np.log(8), np.log(500), 2)))
        picture = Image.new("L", (width, height), int(rng.choice([0, 128, 255])))
        canvas = ImageDraw.Draw(picture)
        for _ in range(rng.integers(1, 6)):
            ends = [(int(rng.integers(width)), int(rng.integers(height))) for _ in range(2)]
            canvas.line(ends, fill=int(rng.integers(256)), width=int(rng.choice([1, 1, 2, 5, 30])))
        brightness = np.asarray(picture, np.float32) / 255
        for found in (find_digits(brightness), [single] if (single := find_single(brightness)) else []):
            for each in found:
                left, top, right, bottom = each.box
                assert 0 <= left < right <= width + 1
                assert 0 <= top < bottom <= height + 1
                assert each.pixels.max() > 0


def test_a_page_full_of_small_pieces_is_done_in_time():
    page = np.ones((1200, 1200), np.float32)
    page[::12, ::12] = page[1::12, ::12] = 0
    page[4:11, 4:6] = 0
    assert len(find_digits(np.kron(page, np.ones((1, 1), np.float32)))) <= 1


@pytest.mark.parametrize("brightness", [0.0, 1.0, 0.5])
def test_an_empty_page_has_no_digits(brightness):
    page = np.full((300, 400), brightness, np.float32)
    noisy = np.clip(page + np.random.default_rng(0).normal(0, 0.01, page.shape), 0, 1).astype(np.float32)
    for picture in (page, noisy, page[:28, :28]):
        assert find_digits(picture) == []
    assert find_single(page) is None
    assert find_single(page[:28, :28]) is None


def test_uneven_light_becomes_even_paper():
    page = draw_page(["88"], size=80)
    ink = level_paper(page)
    assert ink is not None
    border = np.concatenate([ink[:10].ravel(), ink[-10:].ravel()])
    assert page[:10].mean() - page[-10:].mean() > 0.15
    assert abs(ink[:10].mean() - ink[-10:].mean()) < 0.05
    assert np.abs(border).max() < 0.3


def test_what_is_normal_already_stays_as_it_is():
    for pixels in load_train(find_source("sample")).pixels[:50]:
        once = normalise_digit(pixels.reshape(28, 28).astype(np.float32) / 255)
        twice = normalise_digit(once.reshape(28, 28).astype(np.float32) / 255)
        assert np.corrcoef(once, twice)[0, 1] > 0.9


@pytest.mark.parametrize(("height", "width"), [(120, 60), (40, 90), (200, 12), (30, 30)])
def test_a_digit_fills_the_box_and_is_centred_by_mass(height, width):
    """As in MNIST: the longer side is 20 pixels, the aspect is kept, the centre of mass is just after the middle."""
    ink = np.zeros((height, width), np.float32)
    thick = max(2, max(height, width) // 8)
    ink[:thick] = ink[:, :thick] = 1  # more ink at the top and on the left
    image = normalise_digit(ink)
    tall, wide = sides(image)
    assert max(tall, wide) == 20
    assert min(tall, wide) == pytest.approx(20 * min(height, width) / max(height, width), abs=2)
    down, across = centre(image)
    for place, side in ((down, tall), (across, wide)):
        assert 14 <= place <= 15.1 or side == 20  # a digit that fills the box can move by at most 4 pixels


@pytest.mark.parametrize(("pen", "usual"), [(4, 1.8), (120, 4.0)])
def test_strokes_get_a_width_that_is_usual_in_mnist(pen, usual):
    ink = np.zeros((400, 200), np.float32)
    ink[:, 100 - pen // 2 : 100 + pen // 2] = 1
    image = normalise_digit(ink).reshape(28, 28) / 255
    assert image[14].sum() == pytest.approx(usual, rel=0.15)


@pytest.mark.parametrize("frame", ["none", "below", "left", "around"])
def test_a_single_digit_is_found_in_what_is_left_of_a_printed_box(frame):
    picture = np.ones((60, 60), np.float32)
    picture[15:45, 28:33] = 0.3
    alone = find_single(picture)
    assert alone is not None
    if frame in ("below", "around"):
        picture[58:] = 0.2
    if frame in ("left", "around"):
        picture[:, :2] = 0.2
    if frame == "around":
        picture[:2] = picture[:, 58:] = 0.2
    found = find_single(picture)
    assert found is not None
    assert found.box == alone.box == (28, 15, 33, 45)
    np.testing.assert_array_equal(found.pixels, alone.pixels)


@pytest.mark.parametrize("size", [(28, 28), (16, 16), (500, 400), (3000, 2000)])
def test_a_single_digit_of_any_size_is_found(size):
    height, width = size
    picture = np.full(size, 0.9, np.float32)
    top, bottom, left, right = height // 5, 4 * height // 5, int(0.45 * width), int(0.45 * width) + max(2, height // 12)
    picture[top:bottom, left:right] = 0.2
    found = find_single(picture)
    assert found is not None
    np.testing.assert_allclose(found.box, (left, top, right, bottom), atol=max(1, height // 500))
    assert sides(found.pixels)[0] == 20


@pytest.mark.parametrize("enlarged", [1, 5])
@pytest.mark.parametrize("digit", [0, 3, 5, 8])
def test_broad_strokes_cropped_tightly_are_ink_in_both_polarities(digit, enlarged):
    image = Image.new("L", (60, 60), 255)
    canvas = ImageDraw.Draw(image)
    for stroke in STROKES[digit]:
        canvas.line([(60 * x, 60 * y) for x, y in stroke], fill=0, width=10, joint="curve")
    left, top, right, bottom = Image.eval(image, lambda value: 255 - value).getbbox() or (0, 0, 60, 60)
    tight = np.asarray(image, np.float32)[top:bottom, left:right] / 255
    tight = np.kron(tight, np.ones((enlarged, enlarged), np.float32))
    dark, light = find_single(tight), find_single(1 - tight)
    assert dark is not None
    assert light is not None
    assert dark.box == light.box == (0, 0, tight.shape[1], tight.shape[0])
    np.testing.assert_allclose(dark.pixels, light.pixels, atol=1)
    np.testing.assert_allclose(dark.pixels.reshape(28, 28)[4:24, 4:24].mean() / 255, (1 - tight).mean(), atol=0.2)
