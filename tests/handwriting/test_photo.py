"""Photo: every kind of file becomes upright brightness, or one clear error."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kaggle_digits.errors import DataError
from kaggle_digits.handwriting.photo import is_picture, load_photos

# It is dark on the left and light on the right, with a mark in the upper left corner that shows how it is turned.
PICTURE = np.tile(np.linspace(40, 220, 60, dtype=np.uint8), (30, 1))
PICTURE[:8, :8] = 0


def saved(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def load(contents: bytes) -> np.ndarray:
    (photo,) = load_photos(contents, name="photo")
    return photo.picture


def message(contents: bytes) -> str:
    with pytest.raises(DataError) as raised:
        list(load_photos(contents, name="photo"))
    return str(raised.value)


def png_header(width: int, height: int) -> bytes:
    """Return an all-black PNG of that size: 100 million pixels take less than 200 kB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(height * (1 + -(-width // 8))), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF", "PPM"])
def test_grey_values_are_kept(kind):
    np.testing.assert_allclose(load(saved(Image.fromarray(PICTURE), kind)), PICTURE / 255, atol=1e-6)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "HEIF"])
def test_lossy_files_are_nearly_kept(kind):
    assert np.abs(load(saved(Image.fromarray(PICTURE).convert("RGB"), kind)) - PICTURE / 255).mean() < 0.03


def test_sixteen_bits_have_the_range_of_eight():
    wide = Image.fromarray(PICTURE.astype(np.uint16) * 257)
    for kind in ("PNG", "TIFF"):
        np.testing.assert_allclose(load(saved(wide, kind)), PICTURE / 255, atol=1e-4)


def test_floats_of_no_known_range_use_all_of_it():
    floats = Image.fromarray(PICTURE.astype(np.float32) * 3 - 100)
    brightness = load(saved(floats, "TIFF"))
    np.testing.assert_allclose(brightness, PICTURE / PICTURE.max(), atol=1e-5)


def test_what_is_not_a_number_is_paper():
    floats = PICTURE.astype(np.float32)
    floats[20, 20:23] = np.nan, np.inf, -np.inf
    brightness = load(saved(Image.fromarray(floats), "TIFF"))
    assert brightness[20, 20:23].tolist() == [1, 1, 0]
    np.testing.assert_allclose(brightness[:20], PICTURE[:20] / PICTURE.max(), atol=1e-5)


@pytest.mark.parametrize("size", [(20_000, 8), (9000, 31), (12, 30_000)])
def test_long_thin_jpegs_are_read_whole(size):
    (photo,) = load_photos(saved(Image.new("L", size, 128), "JPEG"), name="photo")
    assert photo.size == photo.picture.shape[::-1] == size


def test_cmyk_is_light_where_there_is_no_ink():
    inks = Image.merge("CMYK", [Image.new("L", (60, 30))] * 3 + [Image.fromarray(255 - PICTURE)])
    assert np.abs(load(saved(inks, "TIFF")) - PICTURE / 255).max() < 0.02


@pytest.mark.parametrize(("ink", "paper"), [(20, 1.0), (240, 0.0)])
def test_transparent_paper_stands_out_from_the_ink(ink, paper):
    opaque = np.zeros((30, 60), np.uint8)
    opaque[10:20, 20:25] = 255
    image = Image.merge("LA", [Image.new("L", (60, 30), ink), Image.fromarray(opaque)])
    brightness = load(saved(image))
    assert brightness[0, 0] == paper
    assert brightness[15, 22] == pytest.approx(ink / 255)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "TIFF"])
def test_every_page_and_frame_is_read(kind):
    frames = [Image.fromarray(PICTURE), Image.new("L", (60, 30), 128), Image.fromarray(255 - PICTURE)]
    photos = list(load_photos(saved(frames[0], kind, save_all=True, append_images=frames[1:]), name="photo"))
    assert len(photos) == 3
    for photo, frame in zip(photos, frames, strict=True):
        np.testing.assert_allclose(photo.picture, np.asarray(frame) / 255, atol=0.01)


def test_too_many_frames_are_refused():
    frames = [Image.new("L", (8, 8), shade) for shade in range(101)]
    contents = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert message(contents).startswith("photo: 101 pages or frames. Expected at most 100. ")


def test_animation_of_many_pixels_is_refused():
    frames = [Image.new("P", (5000, 2500), shade) for shade in range(5)]
    contents = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert message(contents).startswith("photo: its pages or frames have more than 50 million pixels together.")


def test_colours_are_kept_and_grey_pictures_have_none():
    image = Image.new("RGB", (60, 30), (250, 220, 40))
    np.testing.assert_allclose(load(saved(image))[0, 0], [250 / 255, 220 / 255, 40 / 255])
    assert load(saved(Image.fromarray(PICTURE).convert("RGB"))).ndim == 2


@pytest.mark.parametrize("name", ["a.jfif", "b.heic", "scan", "photo.txt"])
def test_a_picture_is_known_by_its_contents(tmp_path: Path, name):
    kind = {"a.jfif": "JPEG", "b.heic": "HEIF"}.get(name, "PNG")
    (tmp_path / name).write_bytes(saved(Image.new("RGB", (60, 30)), kind))
    assert is_picture(tmp_path / name)
    (tmp_path / name).write_text("file,row,text\n")
    assert not is_picture(tmp_path / name)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_the_picture_upright(orientation):
    turns = ("FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_90", "TRANSVERSE", "ROTATE_270")
    # The camera stores the picture as it was held, so undo the turn that the orientation asks for.
    held = Image.fromarray(PICTURE)
    if orientation > 1:
        held = held.transpose(Image.Transpose[turns[orientation - 2]])
    exif = Image.Exif()
    exif[0x0112] = orientation
    (photo,) = load_photos(saved(held, "PNG", exif=exif.tobytes()), name="photo")
    np.testing.assert_allclose(photo.picture, PICTURE / 255, atol=1e-6)
    assert photo.size == (60, 30)


@pytest.mark.parametrize(
    ("mode", "form"),
    [("L", "PNG"), ("RGB", "PNG"), ("RGBA", "PNG"), ("P", "GIF"), ("1", "PNG"), ("I;16", "PNG"), ("F", "TIFF")],
)
def test_a_large_picture_of_any_format_is_made_smaller_but_keeps_its_size(mode, form):
    cells = np.zeros((50, 40), np.uint8)
    cells[20:30] = 255
    large = np.kron(cells, np.ones((100, 100), np.uint8))
    image = Image.fromarray(large.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(large).convert(mode)
    (photo,) = load_photos(saved(image, form), name="photo")
    assert photo.size == (4000, 5000)
    assert photo.picture.shape == (2500, 2000)
    assert np.allclose(photo.picture, np.kron(cells / 255, np.ones((50, 50))), atol=0.01)


def test_a_long_thin_picture_keeps_its_shorter_side():
    (photo,) = load_photos(saved(Image.new("L", (20_000, 1000), 255), "PNG"), name="photo")
    assert photo.picture.shape == (500, 10_000)  # else it would take too much memory
    (photo,) = load_photos(saved(Image.new("L", (8000, 1000), 255), "PNG"), name="photo")
    assert photo.picture.shape == (1000, 8000)


def test_a_large_jpeg_is_unpacked_smaller_but_keeps_its_size():
    large = Image.fromarray(np.kron(PICTURE, np.ones((100, 100), np.uint8)))
    (photo,) = load_photos(saved(large, "JPEG"), name="photo")
    assert photo.size == (6000, 3000)
    assert max(photo.picture.shape) == 3000
    np.testing.assert_allclose(photo.picture.mean(), PICTURE.mean() / 255, atol=0.01)


def test_a_file_is_read_as_its_contents_are(tmp_path: Path):
    file = tmp_path / "a.png"
    with pytest.raises(DataError, match=r"a\.png: no such file\."):
        list(load_photos(file))
    file.write_bytes(saved(Image.fromarray(PICTURE)))
    np.testing.assert_array_equal(next(load_photos(file)).picture, load(file.read_bytes()))


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 90 90\n%%EndComments\nshowpage\n"


@pytest.mark.parametrize("contents", [b"", b"no picture", b"%PDF-1.4 ...", EPS])
def test_not_a_picture(contents):
    assert message(contents).startswith("photo: not a picture that can be read. Expected PNG, JPEG, HEIC, WebP, TIFF")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP"])
def test_a_file_that_is_cut_off(kind):
    noise = np.random.default_rng(0).integers(0, 256, (80, 90)).astype(np.uint8)
    whole = saved(Image.fromarray(noise), kind)
    for share in (0.3, 0.6, 0.9):
        said = message(whole[: int(share * len(whole))])
        assert said.startswith(("photo: the picture is damaged or cut off (", "photo: not a picture"))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP"])
def test_a_file_with_wrong_bytes_is_read_or_refused(kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    whole = saved(Image.fromarray(PICTURE), kind, **({"exif": exif.tobytes()} if kind in ("PNG", "JPEG") else {}))
    rng = np.random.default_rng(0)
    for _ in range(200):
        wrong = np.frombuffer(whole, np.uint8).copy()
        wrong[rng.integers(0, len(wrong), 4)] = rng.integers(0, 256, 4)
        with contextlib.suppress(DataError):
            assert all(np.isfinite(photo.picture).all() for photo in load_photos(wrong.tobytes(), name="photo"))


def test_a_picture_that_is_too_small():
    assert message(saved(Image.new("L", (1, 1)))).startswith("photo: 1 × 1 pixels. Expected 8 or more each way.")


@pytest.mark.parametrize(
    ("width", "height", "what"),
    [(10_000, 10_000, "10000 × 10000 pixels, 100 million"), (60_000, 60_000, "more than 178 million pixels")],
)
def test_a_hundred_megapixels_in_a_few_kilobytes_are_refused_before_they_are_unpacked(width, height, what):
    contents = png_header(width, min(height, 10_000))
    if height > 10_000:  # only the header claims this height
        contents = contents[:20] + struct.pack(">I", height) + contents[24:]
        contents = contents[:29] + struct.pack(">I", zlib.crc32(contents[12:29])) + contents[33:]
    assert len(contents) < 200_000
    assert message(contents).startswith(f"photo: {what}. Expected at most 50 million. ")
