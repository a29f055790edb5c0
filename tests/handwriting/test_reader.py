"""Recognize: pictures of a user's handwriting become text, with the network that comes with the package."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from drawn import draw_page, put_on_desk
from PIL import Image, ImageDraw

from kaggle_digits import cli
from kaggle_digits.data import find_source, load_train, split_rows
from kaggle_digits.learners import Context
from kaggle_digits.recipes import find_recipe
from kaggle_digits.strategy import device_of
from kaggle_digits.train import train_run

ROWS = ["31415", "926"]


def save(name: str, brightness: np.ndarray) -> Path:
    file = Path(name)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.rint(255 * brightness).astype(np.uint8)).save(file)
    return file


@pytest.fixture
def page(workplace) -> Path:
    return save("page.png", draw_page(ROWS, seed=3, ruling="ruled"))


@pytest.fixture
def labelled(workplace) -> Path:
    for number, digit in enumerate("0123456789"):
        save(f"digits/{number:04}_{digit}.png", draw_page([digit], seed=number, size=40))
    return Path("digits")


def recognize(capsys, *arguments: object) -> str:
    assert cli.main(["recognize", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def refused(capsys, *arguments: object) -> str:
    assert cli.main(["recognize", *map(str, arguments)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    return printed.err.splitlines()[-1]


def test_a_page_is_read_row_by_row(capsys, page):
    assert recognize(capsys, page) == "31415\n926\n"


def test_only_what_was_read_is_printed(capsys, caplog, page):
    """People who want their digits read do not care where that is computed."""
    caplog.set_level("INFO")
    assert cli.main(["recognize", str(page), "--quiet"]) == 0
    assert capsys.readouterr() == ("".join(f"{row}\n" for row in ROWS), "")
    assert cli.main(["recognize", str(page)]) == 0
    assert not [record for record in caplog.records if "Device" in record.getMessage()]


def test_several_pages_are_named(capsys, page):
    save("empty.png", np.ones((200, 300)))
    assert recognize(capsys, page, "empty.png") == ("page.png:\n  31415\n  926\nempty.png:\n  (no digits found)\n")


def test_a_folder_without_labels_is_one_of_pages(capsys, caplog, page):
    Path("pages").mkdir()
    page.rename("pages/IMG_2041.png")
    Path("pages/notes.txt").write_text("not a picture")
    assert recognize(capsys, "pages") == "31415\n926\n"
    assert "Skipped, since they are no pictures: pages/notes.txt" in caplog.messages


def test_a_page_whose_name_looks_like_a_label_is_a_page(capsys, page):
    """Accuracy is printed only with --labelled."""
    page.rename("1_2.png")
    assert recognize(capsys, "1_2.png") == "31415\n926\n"


def test_every_page_of_a_tiff_is_read(capsys, page):
    with Image.open(page) as first:
        first.save("scan.tif", save_all=True, append_images=[first.copy()])
    rows = "  31415\n  926\n"
    assert recognize(capsys, "scan.tif") == f"scan.tif, page 1:\n{rows}scan.tif, page 2:\n{rows}"
    answers = [json.loads(line) for line in recognize(capsys, "scan.tif", "--json").splitlines()]
    assert [(answer["page"], answer["text"]) for answer in answers] == [(1, ROWS), (2, ROWS)]
    assert "--overlay: scan.tif has 2 pages. Expected one." in refused(capsys, "scan.tif", "--overlay", "a.png")


def test_what_was_turned_and_left_out_is_said(capsys, workplace):
    picture = Image.fromarray(np.rint(255 * draw_page(["3140", "5927"], seed=8)).astype(np.uint8))
    ImageDraw.Draw(picture).line((60, 250, 240, 256), fill=40, width=4)
    picture.transpose(Image.Transpose.ROTATE_90).save("turned.png")
    *rows, turned, left_out = recognize(capsys, "turned.png").splitlines()
    assert rows == ["3140", "5927"]
    assert turned == "(turned clockwise by 90°)"
    assert left_out.startswith("(left out: a sign, a letter or a line")
    answer = json.loads(recognize(capsys, "turned.png", "--json"))
    assert answer["turned"] == 90
    assert {each["why"] for each in answer["left_out"]} == {"a sign, a letter or a line"}


def test_a_sheet_on_a_desk_is_read(capsys, workplace):
    picture, _ = put_on_desk(draw_page(["3140", "5926"], seed=3), desk=0.15, turn=12)
    save("desk.png", picture)
    answer = json.loads(recognize(capsys, "desk.png", "--json"))
    assert answer["text"] == ["3140", "5926"]
    recognize(capsys, "desk.png", "--overlay", "read.png")


def test_json_has_an_object_per_picture_and_line(capsys, page):
    save("empty.png", np.ones((200, 300)))
    first, second = map(json.loads, recognize(capsys, page, "empty.png", "--json").splitlines())
    assert second == {"file": "empty.png", "text": [], "digits": [], "left_out": [], "turned": 0, "too_small": False}
    assert (first["file"], first["text"]) == ("page.png", ROWS)
    assert [digit["digit"] for digit in first["digits"]] == [int(digit) for digit in "".join(ROWS)]
    for digit in first["digits"]:
        left, top, right, bottom = digit["box"]
        assert 40 < bottom - top < 80
        assert 5 < right - left < 70
        assert len(digit["probabilities"]) == 10
        assert sum(digit["probabilities"]) == pytest.approx(1, abs=1e-4)
        assert np.argmax(digit["probabilities"]) == digit["digit"]


def test_what_is_less_sure_than_the_threshold_is_a_question_mark(capsys, page):
    assert recognize(capsys, page, "--threshold", "1") == "?????\n???\n"
    assert recognize(capsys, page, "--threshold", "0") == "31415\n926\n"


@pytest.mark.parametrize("threshold", ["-0.1", "1.5", "nan", "many"])
def test_a_threshold_is_a_probability(capsys, page, threshold):
    with pytest.raises(SystemExit) as ended:
        cli.main(["recognize", str(page), "--threshold", threshold])
    assert ended.value.code == 2
    assert f"{threshold!r} is not a number from 0 to 1" in capsys.readouterr().err


def test_labels_in_the_names_give_a_table(capsys, labelled):
    table = recognize(capsys, labelled, "--labelled").splitlines()
    right = sum(
        json.loads(line)["digits"][0]["digit"] == digit
        for digit, line in enumerate(recognize(capsys, labelled, "--labelled", "--json").splitlines())
    )
    assert right >= 9
    assert table[0] == f"{right / 10:.2%} right: {right} of 10 digits"
    assert table[3].split() == ["is", "read", "as", *map(str, range(10))]
    counts = [[0 if count == "·" else int(count) for count in row.split()[1:]] for row in table[4:]]
    assert np.trace(counts) == right
    assert np.sum(counts, axis=1).tolist() == [1] * 10


@pytest.mark.parametrize("layout", ["LABEL_NUMBER", "class folders"])
def test_labels_come_first_or_from_class_folders(capsys, labelled, layout):
    table = recognize(capsys, labelled, "--labelled")
    for file in sorted(labelled.iterdir()):
        number, label = file.stem.split("_")
        to = {"LABEL_NUMBER": f"{label}_{number}.png", "class folders": f"{label}/{number}.png"}[layout]
        (labelled / to).parent.mkdir(exist_ok=True)
        file.rename(labelled / to)
    assert recognize(capsys, labelled, "--labelled") == table


def test_small_pictures_of_one_digit_are_no_pages(capsys, workplace):
    save("0001_7.png", np.ones((28, 28)))
    assert "0001_7.png: 28 × 28 pixels, too small for a page. Expected a larger" in refused(capsys, "0001_7.png")


def test_the_worst_mistakes_are_drawn(capsys, labelled):
    Path("digits/0003_3.png").rename("digits/0003_4.png")
    recognize(capsys, labelled, "--labelled", "--mistakes", "mistakes.png")
    with Image.open("mistakes.png") as drawn:
        assert min(drawn.size) > 60


def test_a_single_digit_has_one_answer_whatever_is_beside_it(capsys):
    save("five.png", draw_page(["5"], size=70))
    answer = json.loads(recognize(capsys, "five.png", "--single", "--json"))
    assert answer["text"] == ["5"]
    save("white.png", np.ones((28, 28)))
    assert recognize(capsys, "white.png", "--single") == "(no digits found)\n"


def test_the_overlay_says_why_on_request(capsys, page):
    recognize(capsys, page, "--overlay", "read.png")
    recognize(capsys, page, "--overlay", "why.png", "--why")
    plain, reasons = (np.asarray(Image.open(name), int) for name in ("read.png", "why.png"))
    changed = (plain != reasons).any(axis=2)
    boxes = np.zeros_like(changed)
    for each in json.loads(recognize(capsys, page, "--json"))["digits"]:
        left, top, right, bottom = each["box"]
        boxes[top:bottom, left:right] = True
    assert changed.any()
    assert not (changed & ~boxes).any()
    assert "--why: is drawn on the picture. Expected --overlay FILE.png as well." in refused(capsys, page, "--why")


def test_the_overlay_is_drawn_on_the_picture_the_right_way_up(capsys, page):
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(page) as image:
        upright = image.size
        image.transpose(Image.Transpose.ROTATE_90).save("turned.png", exif=exif.tobytes())
    assert recognize(capsys, "turned.png", "--overlay", "read.png") == "31415\n926\n"
    with Image.open("read.png") as drawn:
        assert drawn.size == upright
        red, green = np.asarray(drawn, int).reshape(-1, 3).T[:2]
    assert (green > red + 60).sum() > 500


@pytest.mark.parametrize("mode", ["LA", "I;16", "F", "P"])
def test_the_overlay_shows_the_picture_as_it_was_read(capsys, page, mode):
    with Image.open(page) as image:
        grey = np.asarray(image)
    pictures = {
        "LA": lambda: Image.merge("LA", [Image.new("L", grey.shape[::-1]), Image.fromarray(255 - grey)]),
        "I;16": lambda: Image.fromarray(grey.astype(np.uint16) * 257),
        "F": lambda: Image.fromarray(grey.astype(np.float32)),
        "P": lambda: Image.fromarray(grey).convert("P"),
    }
    suffix = "tif" if mode == "F" else "png"
    pictures[mode]().save(f"other.{suffix}")
    assert recognize(capsys, f"other.{suffix}", "--overlay", "read.png") == "31415\n926\n"
    with Image.open("read.png") as drawn:
        assert 60 < np.asarray(drawn.convert("L")).mean() < 240


def test_boxes_lie_within_a_large_picture(capsys):
    picture = np.ones((3023, 4032))
    picture[1000:3023, 1900:2100] = 0.1
    save("large.png", picture)
    ((left, top, right, bottom),) = [
        digit["box"] for digit in json.loads(recognize(capsys, "large.png", "--single", "--json"))["digits"]
    ]
    np.testing.assert_allclose([left, top, right], [1900, 1000, 2100], atol=12)
    assert bottom == 3023


def test_the_users_files_are_not_replaced_unasked(capsys, page):
    before = page.read_bytes()
    assert "page.png: exists already. Expected a new name." in refused(capsys, page, "--overlay", page)
    assert page.read_bytes() == before
    recognize(capsys, page, "--overlay", page, "--force")
    assert page.read_bytes() != before


def test_any_run_folder_reads(capsys, page):
    rows, held_out = split_rows(load_train(find_source("sample")), fraction=0.2, seed=0)
    recipe = find_recipe("knn")
    train_run(
        recipe, rows, Path("run"), held_out=held_out, context=Context(device=device_of(recipe), seed=0, source="sample")
    )
    assert json.loads(Path("run/run.json").read_text())["temperature"] > 0
    answer = json.loads(recognize(capsys, page, "--run", "run", "--json"))
    assert [len(row) for row in answer["text"]] == [5, 3]


def test_bad_input_is_refused_in_one_line(capsys, page, labelled):
    Path("none").mkdir()
    Path("page.jpg").write_bytes(page.read_bytes()[:2000])
    for arguments, said in (
        (["nowhere.png"], "nowhere.png: no such file. Expected a picture."),
        (["none"], "none: no picture in this folder. Expected pictures, or the folders 0 to 9 with pictures."),
        ([page, "page.jpg"], "page.jpg: the picture is damaged or cut off ("),
        ([page, labelled / "0001_1.png", "--labelled"], "page.png: no label in its name. Expected NUMBER_LABEL or"),
        ([labelled, "--overlay", "a.png"], "--overlay: 10 pictures were given. Expected one."),
        ([page, "--overlay", "a.jpg"], "a.jpg: is not named like a PNG file. Expected a name ending in .png."),
        ([page, "--mistakes", "a.png"], "--mistakes: without --labelled, no mistake can be told."),
        ([page, "--run", "none"], "none: no run.json in it."),
    ):
        assert refused(capsys, *arguments).startswith(f"kaggle-digits: {said}")
    assert not list(Path().glob("a.*"))


@pytest.mark.parametrize("label", ["x", "12", "-1"])
def test_a_label_that_is_no_digit_is_refused(capsys, labelled, label):
    (labelled / "0003_3.png").rename(labelled / f"0003_{label}.png")
    assert f"digits/0003_{label}.png: no label in its name. Expected" in refused(capsys, labelled, "--labelled")
