"""Page: digits are found on pages as a camera sees them, and what is no digit is told from them."""

from __future__ import annotations

import io

import numpy as np
import pytest
from drawn import STROKES, draw_page, put_on_desk
from PIL import Image, ImageDraw, ImageFont

from kaggle_digits.data import find_source, load_train
from kaggle_digits.handwriting.normalise import normalise_digit
from kaggle_digits.handwriting.page import Page, find_single
from kaggle_digits.handwriting.reader import Reader

ROWS = ["0123456789", "9876543210", "27182"]


@pytest.fixture(scope="module")
def read():
    """Return a function that reads a page, brightness (H, W) or (H, W, 3), with the networks of the package."""
    reader = Reader()
    return lambda page: reader.read_page(np.asarray(page, np.float32))


@pytest.fixture(scope="module")
def single():
    """Return a function that finds the digit of a picture with one."""
    reader = Reader()
    return lambda picture: find_single(picture, reader.find_ink)


def best(page: Page) -> list[str]:
    """Return the rows of a page as the likeliest digits."""
    rows: dict[int, str] = {}
    for each in page.digits:
        rows[each.row] = rows.get(each.row, "") + str(each.digit)
    return list(rows.values())


def canvas_of(page: np.ndarray) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    picture = Image.fromarray((255 * page).astype(np.uint8))
    return picture, ImageDraw.Draw(picture)


def jpeg(brightness: np.ndarray) -> np.ndarray:
    """Return a picture as a camera's JPEG has it."""
    stream = io.BytesIO()
    Image.fromarray(np.rint(255 * np.clip(brightness, 0, 1)).astype(np.uint8)).save(stream, "JPEG", quality=85)
    return np.asarray(Image.open(stream), np.float32) / 255


def sides(image: np.ndarray) -> tuple[int, int]:
    """Return the height and width of the ink in a (784,) image."""
    ink = image.reshape(28, 28) > 90
    return int(np.ptp(np.flatnonzero(ink.any(axis=1)))) + 1, int(np.ptp(np.flatnonzero(ink.any(axis=0)))) + 1


def centre(image: np.ndarray) -> tuple[float, float]:
    """Return the centre of mass in pixels from the upper left corner; (28, 28) is the lower right corner."""
    ink = image.reshape(28, 28).astype(float)
    along = np.arange(28) + 0.5
    return float(ink.sum(axis=1) @ along / ink.sum()), float(ink.sum(axis=0) @ along / ink.sum())


@pytest.mark.parametrize("ruling", ["plain", "ruled", "squared", "dashed"])
@pytest.mark.parametrize(("pen", "turn"), [(3, 0), (5, 3), (9, -5)])
def test_all_digits_of_a_page_are_found_in_reading_order(read, ruling, pen, turn):
    page = read(draw_page(ROWS, pen=pen, turn=turn, ruling=ruling, seed=1))
    assert [len(row) for row in page.text] == [10, 10, 5]
    for row in range(3):
        lefts = [each.box[0] for each in page.digits if each.row == row]
        assert lefts == sorted(lefts)


def test_boxes_are_where_the_digits_are(read):
    page = np.ones((200, 300), np.float32)
    page[50:110, 40:48] = 0.2
    page[50:110, 200:210] = 0.2
    boxes = [each.box for each in read(page).digits]
    np.testing.assert_allclose(boxes, [(40, 50, 48, 110), (200, 50, 210, 110)], atol=3)


def test_light_ink_on_dark_paper_is_read_like_dark_on_light(read):
    page = draw_page(ROWS, seed=2)
    assert best(read(1 - page)) == best(read(page)) == ROWS


def test_a_large_photograph_has_boxes_in_its_own_pixels(read):
    page = draw_page(["123"], size=60)
    large = np.kron(page, np.ones((10, 10), np.float32))
    for one, other in zip(read(page).digits, read(large).digits, strict=True):
        np.testing.assert_allclose(np.multiply(one.box, 10), other.box, atol=25)


def test_what_is_no_digit_is_left_out_and_told(read):
    picture, canvas = canvas_of(draw_page(["123", "456"], size=80))
    width, height = picture.size
    canvas.ellipse((width - 70, 20, width - 30, 58), fill=40)  # a blot
    canvas.line((20, height - 30, 200, height - 26), fill=40, width=4)  # a dash
    canvas.circle((20, 20), 4, fill=40)  # a dot
    canvas.rectangle((0, 0, width, 5), fill=20)  # the table beyond the paper
    canvas.rectangle((0, 0, 6, height), fill=20)
    page = read(np.asarray(picture, np.float32) / 255)
    assert best(page) == ["123", "456"]
    assert any(np.allclose(part.box, (width - 70, 20, width - 29, 59), atol=4) for part in page.left_out)


def test_parts_of_one_digit_belong_together(read):
    picture, canvas = canvas_of(draw_page(["1 3", "274"], size=80, seed=1))
    bar, rest = STROKES[5][0][:2], STROKES[5][0][1:]
    for stroke, lower in ((bar, 0), (rest, 9)):
        points = [(170 + 78 * x, 70 + lower + 78 * y) for x, y in stroke]
        canvas.line(points, fill=50, width=5, joint="curve")
    assert best(read(np.asarray(picture, np.float32) / 255)) == ["153", "274"]


@pytest.mark.parametrize("turn", [-20, -7, 0, 12, 20])
@pytest.mark.parametrize(("desk", "paper"), [(0.15, 1.0), (0.9, 0.5)])
def test_a_sheet_on_a_desk_is_read(read, turn, desk, paper):
    picture, _ = put_on_desk(paper * draw_page(["3140", "5926"], seed=3), desk=desk, turn=turn)
    page = read(jpeg(picture))
    assert best(page) == ["3140", "5926"]
    height, width = picture.shape
    for digit in page.digits:  # boxes are those of the picture, so there is ink in them
        left, top, right, bottom = digit.box
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        inside = picture[top:bottom, left:right]
        assert inside.min() < 0.7 * np.median(picture[max(0, top - 30) : bottom + 30, max(0, left - 30) : right + 30])


def test_a_corner_of_the_sheet_may_be_outside_of_the_picture(read):
    picture, _ = put_on_desk(draw_page(["3140", "5926"], seed=3), desk=0.15, turn=10)
    page = read(picture[90:, 70:])
    assert best(page) == ["3140", "5926"]


@pytest.mark.parametrize("seed", range(4))
def test_a_shadow_is_no_ink(read, seed):
    page = draw_page(["3140", "5926"], seed=seed)
    y, x = np.mgrid[: page.shape[0], : page.shape[1]]
    shadow = 1 - 0.4 / (1 + np.exp(-(y - 0.4 * page.shape[0] - 0.3 * x * (seed - 1.5)) / 3))
    found = read(page * shadow)
    assert best(found) == ["3140", "5926"]


def test_what_covers_much_of_the_picture_is_never_sure(read):
    page = np.ones((300, 300), np.float32)
    y, x = np.mgrid[:300, :300] - 150
    page[np.abs(np.hypot(y, x) - 120) < 15] = 0.1
    found = read(page)
    assert found.digits or found.left_out
    assert not any(each.sure for each in found.digits)


def test_small_zeros_are_digits_and_dots_are_not(read):
    picture, canvas = canvas_of(draw_page(["1 2 3", "4 5 6"], seed=0))
    for top, radius in ((102, 9), (208, 12)):
        canvas.circle((168, top), radius, outline=50, width=3)
    for top in (105, 210):
        canvas.circle((348, top), 4, fill=50)
    page = read(np.asarray(picture, np.float32) / 255)
    assert best(page) == ["1023", "4056"]


def test_a_stroke_that_fades_stays_in_one_piece(read):
    assert best(read(draw_page(["4607", "5983"], seed=5, fade=0.6))) == ["4607", "5983"]


@pytest.mark.parametrize("colour", [(0.95, 0.85, 0.1), (0.1, 0.8, 0.9), (0.9, 0.4, 0.7)])
def test_a_coloured_pen_is_ink_beside_a_black_one(read, colour):
    black, coloured = draw_page(["123"], seed=6), draw_page(["456"], seed=6)
    pages = [page / np.percentile(page, 95) for page in (black, coloured)]
    ink = np.clip((1 - pages[1]) / 0.75, 0, 1)[:, :, None]
    page = np.concatenate([np.repeat(pages[0][:, :, None], 3, axis=2), 1 - ink * (1 - np.array(colour))])
    assert best(read(np.clip(page, 0, 1))) == ["123", "456"]


@pytest.mark.parametrize(("text", "gap"), [("35", 0.66), ("8305", 0.66), ("47", 0.62)])
def test_digits_that_touch_are_cut(read, text, gap):
    page = draw_page([text, "123456"], seed=7, gap=gap)
    assert best(read(page))[0] == text


@pytest.mark.parametrize("wide", [1.3, 1.6])
def test_a_wide_zero_is_not_cut_in_two(read, wide):
    picture, canvas = canvas_of(draw_page(["3   "]))
    left, middle = picture.width / 2, picture.height / 2
    canvas.ellipse((left, middle - 30, left + 60 * wide, middle + 30), outline=40, width=6)
    assert read(np.asarray(picture, np.float32) / 255).text == ["30"]


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_page_is_turned_the_right_way_up(read, turns):
    upright = draw_page(["3140", "5927"], seed=8)
    expected = read(upright)
    page = read(np.rot90(upright, turns))
    assert page.text == expected.text == ["3140", "5927"]
    assert (expected.turned, page.turned) == (0, 90 * turns)
    height, width = upright.shape
    for one, other in zip(expected.digits, page.digits, strict=True):
        left, top, right, bottom = one.box
        corners = np.array([[left, top], [right, bottom]])
        for _ in range(turns):  # counter-clockwise
            corners = np.stack([corners[:, 1], width - corners[:, 0]], axis=1)
            height, width = width, height
        height, width = upright.shape
        np.testing.assert_allclose(other.box, [*corners.min(axis=0), *corners.max(axis=0)], atol=2)


def test_printed_boxes_and_frames_are_no_digits(read):
    drawn = draw_page(["3140", "5926"], seed=9, size=70)
    picture, canvas = canvas_of(drawn)
    for left, top, right, bottom in [digit.box for digit in read(drawn).digits]:
        canvas.rectangle((left - 14, top - 14, right + 14, bottom + 14), outline=90, width=2)
    canvas.rectangle((465, 25, 505, 80), outline=60, width=3)  # an empty box
    page = read(np.asarray(picture, np.float32) / 255)
    assert [len(row) for row in page.text] == [4, 4]
    right = sum(one == other for one, other in zip("".join(best(page)), "31405926", strict=True))
    assert right >= 7


def test_letters_and_signs_are_no_sure_digits(read):
    """The font is Matplotlib's, but none that the network was trained on."""
    import matplotlib as mpl

    from kaggle_digits.learners.drawing import HELD_OUT_FONTS, LETTERS

    def count_sure(text: str) -> int:
        count = 0
        for name in HELD_OUT_FONTS:
            font = ImageFont.truetype(f"{mpl.get_data_path()}/fonts/ttf/{name}.ttf", 90)
            picture = Image.new("L", (1200, 200), 235)
            ImageDraw.Draw(picture).text((30, 30), text, fill=40, font=font)
            count += sum(digit.sure for digit in read(np.asarray(picture, np.float32) / 255).digits)
        return count

    assert sum(map(count_sure, (LETTERS[:15], LETTERS[15:], "+ - = % #"))) <= 6  # of 70
    assert count_sure("023456789") >= 14  # of 18


def test_any_drawing_is_read_without_a_fault(read, single):
    rng = np.random.default_rng(0)
    for _ in range(60):
        width, height = (int(side) for side in np.exp(rng.uniform(np.log(8), np.log(500), 2)))
        picture = Image.new("L", (width, height), int(rng.choice([0, 128, 255])))
        canvas = ImageDraw.Draw(picture)
        for _ in range(rng.integers(1, 6)):
            ends = [(int(rng.integers(width)), int(rng.integers(height))) for _ in range(2)]
            canvas.line(ends, fill=int(rng.integers(256)), width=int(rng.choice([1, 1, 2, 5, 30])))
        brightness = np.asarray(picture, np.float32) / 255
        one = single(brightness)
        for found in (read(brightness).digits, [one] if one else []):
            for each in found:
                left, top, right, bottom = each.box
                assert 0 <= left < right <= width + 1
                assert 0 <= top < bottom <= height + 1
                assert each.pixels.max() > 0


def test_a_page_full_of_small_pieces_is_done_in_time(read):
    page = np.ones((1200, 1200), np.float32)
    page[::12, ::12] = page[1::12, ::12] = 0
    page[4:11, 4:6] = 0
    assert len(read(page).digits) <= 1


def test_two_cards_on_a_desk_are_both_read(read):
    left, right = (draw_page([text], size=80, seed=2) for text in ("31", "40"))
    desk = np.full((left.shape[0] + 120, left.shape[1] + right.shape[1] + 160), 0.2, np.float32)
    desk[60 : 60 + left.shape[0], 50 : 50 + left.shape[1]] = left
    start = 110 + left.shape[1]
    desk[60 : 60 + right.shape[0], start : start + right.shape[1]] = right
    assert best(read(desk)) == ["3140"]


def test_a_point_that_changes_a_number_is_told(read):
    drawn = draw_page(["3 14", "2718"], seed=4, size=70)
    (three, *_), picture_and_canvas = read(drawn).digits, canvas_of(drawn)
    picture, canvas = picture_and_canvas
    left, bottom = three.box[2] + 35, three.box[3]
    canvas.ellipse((left - 5, bottom - 9, left + 5, bottom + 1), fill=40)
    page = read(np.asarray(picture, np.float32) / 255)
    assert best(page) == ["314", "2718"]
    assert [part.why for part in page.left_out] == ["perhaps a point after the 3"]


def test_a_narrow_seven_without_a_bar_is_doubted_where_others_have_one(read):
    picture, canvas = canvas_of(draw_page(["7270", "47 3"], seed=3, size=70))
    sevens = [digit.box for digit in read(np.asarray(picture, np.float32) / 255).digits if digit.digit == 7]
    left, top, right, bottom = sevens[-1]
    points = [(left + 110 + 70 * x, top + 70 * y) for x, y in ((0.26, 0.16), (0.62, 0.06), (0.5, 0.95))]
    canvas.line(points, fill=40, width=5, joint="curve")  # a one with a flag
    assert read(np.asarray(picture, np.float32) / 255).text == ["7270", "4773"]
    for left, top, right, bottom in sevens:
        middle = (top + bottom) // 2
        canvas.line((left + 8, middle + 4, right + 4, middle), fill=40, width=5)
    assert read(np.asarray(picture, np.float32) / 255).text == ["7270", "47?3"]


def test_digits_that_are_too_small_are_never_sure(read):
    picture = Image.fromarray((255 * draw_page(ROWS, size=40, seed=1)).astype(np.uint8))
    small = picture.resize((picture.width // 5, picture.height // 5), Image.Resampling.BOX)
    page = read(np.asarray(small, np.float32) / 255)
    assert page.too_small
    assert set("".join(page.text)) <= {"?"}


@pytest.mark.parametrize("brightness", [0.0, 1.0, 0.5])
def test_an_empty_page_has_no_digits(read, single, brightness):
    empty = np.full((300, 400), brightness, np.float32)
    noisy = np.clip(empty + np.random.default_rng(0).normal(0, 0.01, empty.shape), 0, 1).astype(np.float32)
    for picture in (empty, noisy, empty[:28, :28]):
        page = read(picture)
        assert (page.digits, page.left_out) == ([], [])
    assert single(empty) is None
    assert single(empty[:28, :28]) is None


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
def test_a_single_digit_is_found_in_what_is_left_of_a_printed_box(single, frame):
    picture = np.ones((60, 60), np.float32)
    picture[15:45, 28:33] = 0.3
    alone = single(picture)
    assert alone is not None
    edges = {"none": [], "below": [np.s_[58:]], "left": [np.s_[:, :2]]}
    for edge in edges.get(frame, [np.s_[58:], np.s_[:, :2], np.s_[:2], np.s_[:, 58:]]):
        picture[edge] = 0.2
    found = single(picture)
    assert found is not None
    assert found.box == alone.box == (28, 15, 33, 45)
    np.testing.assert_array_equal(found.pixels, alone.pixels)


@pytest.mark.parametrize("size", [(28, 28), (16, 16), (500, 400), (3000, 2000)])
def test_a_single_digit_of_any_size_is_found(single, size):
    height, width = size
    picture = np.full(size, 0.9, np.float32)
    top, bottom, left, right = height // 5, 4 * height // 5, int(0.45 * width), int(0.45 * width) + max(2, height // 12)
    picture[top:bottom, left:right] = 0.2
    found = single(picture)
    assert found is not None
    np.testing.assert_allclose(found.box, (left, top, right, bottom), atol=max(1, height // 500))
    assert sides(found.pixels)[0] == 20


@pytest.mark.parametrize("enlarged", [1, 5])
@pytest.mark.parametrize("digit", [0, 3, 5, 8])
def test_broad_strokes_cropped_tightly_are_ink_in_both_polarities(single, digit, enlarged):
    image = Image.new("L", (60, 60), 255)
    canvas = ImageDraw.Draw(image)
    for stroke in STROKES[digit]:
        canvas.line([(60 * x, 60 * y) for x, y in stroke], fill=0, width=10, joint="curve")
    left, top, right, bottom = Image.eval(image, lambda value: 255 - value).getbbox() or (0, 0, 60, 60)
    tight = np.asarray(image, np.float32)[top:bottom, left:right] / 255
    tight = np.kron(tight, np.ones((enlarged, enlarged), np.float32))
    dark, light = single(tight), single(1 - tight)
    assert dark is not None
    assert light is not None
    assert dark.box == light.box == (0, 0, tight.shape[1], tight.shape[0])
    np.testing.assert_allclose(dark.pixels, light.pixels, atol=1)
    np.testing.assert_allclose(dark.pixels.reshape(28, 28)[4:24, 4:24].mean() / 255, (1 - tight).mean(), atol=0.2)
