"""Images from every kind of source come out upright, opaque and RGB; damaged and oversized ones are refused."""

from __future__ import annotations

import base64
import functools
import http.server
import math
import threading
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import reopold_vl.torchvision_shim  # noqa: F401
from reopold_vl import images
from reopold_vl.images import ImageError, fit_image, image_reference, image_size, load_image

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def halves(width: int = 40, height: int = 30) -> Image.Image:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(BLUE, (width // 2, 0, width, height))
    return image


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a picture.png").write_bytes(encoded(halves()))
    return tmp_path


@pytest.mark.parametrize(
    "kind", ["pil", "path", "text", "relative", "file_url", "bytes", "dict_bytes", "dict_path", "data_uri", "plain_uri"]
)
def test_every_source_gives_the_same_pixels(folder: Path, kind: str) -> None:
    path, data = folder / "a picture.png", encoded(halves())
    source = {
        "pil": halves(),
        "path": path,
        "text": str(path),
        "relative": "a picture.png",
        "file_url": path.as_uri(),
        "bytes": data,
        "dict_bytes": {"bytes": data, "path": "missing.png"},
        "dict_path": {"bytes": None, "path": "a picture.png"},
        "data_uri": "data:image/png;base64," + base64.b64encode(data).decode(),
        "plain_uri": "data:image/png," + "".join(f"%{byte:02x}" for byte in data),
    }[kind]
    image = load_image(source, base_dir=folder)
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), np.asarray(halves()))
    assert image_size(source, base_dir=folder) == (40, 30)
    reference = image_reference(source, base_dir=folder)
    assert load_image(reference).tobytes() == image.tobytes()


def test_result_shares_nothing_with_a_pil_source() -> None:
    source = halves()
    load_image(source).paste(WHITE, (0, 0, 40, 30))
    assert source.getpixel((0, 0)) == RED


@pytest.fixture
def server(folder: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    service = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=service.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{service.server_port}"
    service.shutdown()
    thread.join()
    service.server_close()


def test_url_only_when_asked(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    url = f"{server}/a%20picture.png"
    with pytest.raises(ImageError, match="allow_url=True"):
        load_image(url)
    assert load_image(url, allow_url=True).tobytes() == halves().tobytes()
    with pytest.raises(ImageError, match="404"):
        load_image(f"{server}/none.png", allow_url=True)
    monkeypatch.setattr(images, "MAX_URL_BYTES", 50)
    with pytest.raises(ImageError, match="more than the 50 bytes"):
        load_image(url, allow_url=True)


@pytest.mark.parametrize(
    "mode", ["1", "L", "P", "RGB", "RGBA", "LA", "PA", "La", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV"]
)
def test_every_mode_becomes_rgb(mode: str) -> None:
    source = halves().convert("RGBA" if mode == "RGBa" else "LA" if mode in ("La", "PA") else mode)
    source = source.convert(mode) if source.mode != mode else source
    image = load_image(source)
    assert image.mode == "RGB"
    assert image.size == (40, 30)
    left, right = np.asarray(image)[15, 5].astype(int), np.asarray(image)[15, 35].astype(int)
    if mode in ("P", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV"):
        assert abs(left - RED).max() <= 2
        assert abs(right - BLUE).max() <= 2
    else:  # grey keeps their brightness order: 76 and 29
        assert left.min() >= right.max()


def test_cmyk_jpeg_and_webp_and_palette_files() -> None:
    for data in (encoded(halves().convert("CMYK"), "JPEG"), encoded(halves(), "WEBP"), encoded(halves(), "GIF")):
        assert abs(np.asarray(load_image(data))[15, 5].astype(int) - RED).max() < 12


def test_transparency_is_composed_on_white() -> None:
    source = Image.new("RGBA", (4, 1), (0, 0, 0, 0))  # invisible black
    source.putpixel((1, 0), (255, 0, 0, 255))
    source.putpixel((2, 0), (0, 0, 0, 128))
    for image in (source, encoded(source), encoded(source, "WEBP", lossless=True)):
        pixels = np.asarray(load_image(image))[0]
        assert pixels[0].tolist() == list(WHITE)
        assert pixels[1].tolist() == list(RED)
        assert abs(pixels[2].astype(int) - 127).max() <= 1
    grey = Image.new("LA", (1, 1), (0, 0))
    assert load_image(grey).getpixel((0, 0)) == WHITE


def test_transparent_colour_of_palette_grey_and_16_bit_files() -> None:
    palette = halves().quantize(2)
    index = palette.getpixel((0, 0))
    image = load_image(encoded(palette, "PNG", transparency=index))
    assert image.getpixel((0, 0)) == WHITE
    assert image.getpixel((39, 0)) == BLUE
    assert load_image(encoded(Image.new("L", (2, 2), 7), "PNG", transparency=7)).getpixel((0, 0)) == WHITE
    assert load_image(encoded(Image.new("1", (2, 2), 0), "PNG", transparency=0)).getpixel((0, 0)) == WHITE
    deep = Image.new("I;16", (2, 2), 700)
    deep.info["transparency"] = 700
    assert load_image(deep).getpixel((0, 0)) == WHITE


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "pil", "big_endian", "I"])
def test_16_bit_grey_is_scaled_not_clipped(kind: str) -> None:
    values = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    deep = Image.fromarray(values)
    assert deep.mode == "I;16"
    source = encoded(deep, kind) if kind in ("PNG", "TIFF") else deep
    if kind == "big_endian":
        source = Image.frombytes("I;16B", (4, 1), values.astype(">u2").tobytes())
    if kind == "I":
        source = Image.fromarray(values.astype(np.int32))
    assert np.asarray(load_image(source))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_float_grey() -> None:
    unit = Image.fromarray(np.array([[0.0, 0.5, 1.0]], dtype=np.float32))
    assert np.asarray(load_image(unit))[0, :, 1].tolist() == [0, 128, 255]
    bytes_like = Image.fromarray(np.array([[0.0, 100.0, 255.0]], dtype=np.float32))
    assert np.asarray(load_image(bytes_like))[0, :, 1].tolist() == [0, 100, 255]
    for bad in (-1.0, 300.0, math.nan):
        with pytest.raises(ImageError, match=r"outside 0\.\.255"):
            load_image(Image.fromarray(np.array([[2.0, bad]], dtype=np.float32)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,  # the camera's 6 is undone by 270 degrees, so it is stored turned by 90
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    upright = halves()
    upright.paste((0, 255, 0), (0, 0, 20, 15))
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = load_image(encoded(stored, "PNG", exif=exif))
    assert image.size == (40, 30)
    np.testing.assert_array_equal(np.asarray(image), np.asarray(upright))


def test_broken_exif_does_not_cost_the_picture() -> None:
    data = encoded(halves(), "JPEG", exif=b"Exif\x00\x00garbage, no TIFF header")
    assert load_image(data).size == (40, 30)


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert load_image(data).getpixel((3, 3)) == RED


def test_pixel_bombs_are_refused_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    small, data = halves(), encoded(Image.new("1", (20_000, 20_000)))  # 400 million pixels in a few kB
    assert len(data) < 100_000
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    for look in (load_image, image_size):
        with pytest.raises(ImageError, match="pixels"):
            look(data)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # Pillow's own guard off: ours stays
    with pytest.raises(ImageError, match="20000 x 20000 pixels, more than the 178956970"):
        load_image(data)
    monkeypatch.setattr(images, "MAX_IMAGE_PIXELS", 1199)
    with pytest.raises(ImageError, match="40 x 30"):
        load_image(small)


BAD = {
    "truncated png": encoded(halves())[:-40],
    "truncated jpeg": encoded(halves(400, 300), "JPEG")[:900],
    "text": b"hello",
    "nothing": b"",
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n",
    "missing": "no/such file.png",
    "directory": "/",
    "null byte": "a\0b.png",
    "broken file url": "file://[",
    "long name": "x" * 5000,
    "blank": " ",
    "number": 5,
    "none": None,
    "empty dict": {"bytes": None, "path": None},
    "no comma": "data:image/png;base64",
    "not base64": "data:image/png;base64,@@@@",
    "no pixels": Image.new("RGB", (0, 5)),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_images_are_one_clear_line(name: str) -> None:
    with pytest.raises(ImageError, match="image") as caught:
        load_image(BAD[name])
    assert "\n" not in str(caught.value)
    assert 10 < len(str(caught.value)) < 400


@pytest.mark.parametrize("factor", [28, 32])
@pytest.mark.parametrize("size", [(640, 480), (84, 84), (1000, 37), (33, 3000), (33, 32), (3001, 2003)])
def test_fit_equals_qwen_vl_utils_on_normal_images(factor: int, size: tuple[int, int]) -> None:
    from qwen_vl_utils import fetch_image, smart_resize

    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    low, high = 4 * factor**2, 400 * factor**2
    ours = fit_image(image, factor=factor, min_pixels=low, max_pixels=high)
    request: dict[str, Any] = {"image": image, "min_pixels": low, "max_pixels": high}
    theirs = fetch_image(request, image_patch_size=factor // 2)
    np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))
    assert (ours.height, ours.width) == smart_resize(size[1], size[0], factor, low, high)


def test_tiny_sides_are_padded_with_white_around_the_centre() -> None:
    image = fit_image(Image.new("RGB", (28, 4), RED), factor=28, min_pixels=784, max_pixels=784 * 16)
    assert image.size == (28, 28)
    pixels = np.asarray(image)
    assert (pixels[:12] == 255).all()
    assert (pixels[12:16] == RED).all()
    assert (pixels[16:] == 255).all()


def test_a_single_pixel_and_a_very_long_line_are_accepted() -> None:
    budget = {"factor": 28, "min_pixels": 4 * 784, "max_pixels": 9 * 784}
    assert fit_image(Image.new("RGB", (1, 1)), **budget).size == (56, 56)
    line = fit_image(Image.new("RGB", (1_000_000, 1)), **budget)
    assert line.width > line.height >= 28
    assert (np.asarray(line) < 255).any()


@settings(max_examples=150, deadline=None)
@given(
    width=st.integers(1, 3000),
    height=st.integers(1, 60),
    turn=st.booleans(),
    patch=st.sampled_from([2, 8, 14, 16]),
    tokens=st.integers(1, 300),
)
def test_any_shape_fits_any_budget(width: int, height: int, turn: bool, patch: int, tokens: int) -> None:
    factor = 2 * patch
    size = (height, width) if turn else (width, height)
    image = fit_image(Image.new("RGB", size), factor=factor, min_pixels=1, max_pixels=tokens * factor**2)
    assert image.width % factor == image.height % factor == 0
    assert 0 < image.width * image.height <= tokens * factor**2


@pytest.mark.parametrize(
    ("factor", "low", "high", "named"),
    [
        (27, 1, 10**6, "factor=27"),
        (0, 1, 10**6, "factor=0"),
        (28, 9, 8, "min_pixels=9"),
        (28, 1, 783, "784"),
        (28, 0, 784, "=0"),
    ],
)
def test_impossible_budgets_are_named(factor: int, low: int, high: int, named: str) -> None:
    with pytest.raises(ImageError, match=named):
        fit_image(halves(), factor=factor, min_pixels=low, max_pixels=high)


def test_other_modes_are_converted_before_fitting() -> None:
    image = fit_image(Image.new("LA", (56, 56), (0, 0)), factor=28, min_pixels=784, max_pixels=78400)
    assert image.getpixel((20, 20)) == WHITE
