"""Whatever visitors upload, type or draw: usable pictures come through, everything else is one line."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from demo import picture, sketch
from demo.compare import Sampling, race
from demo.contenders import Arena
from demo.errors import DemoError
from demo.picture import make_sample, read_picture

RED = Image.new("RGB", (40, 20), (200, 10, 10))


def saved(path: Path, image: Image.Image, name: str, **options: Any) -> Path:
    image.save(path / name, **options)
    return path / name


def test_odd_pictures_become_upright_rgb(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    cases = {
        "turned.jpg": (RED, {"exif": exif}, (20, 40)),
        "cmyk.jpg": (RED.convert("CMYK"), {}, (40, 20)),
        "grey16.png": (Image.fromarray(np.full((20, 40), 40_000, np.uint16)), {}, (40, 20)),
        "clear.png": (Image.new("RGBA", (40, 20), (0, 0, 0, 0)), {}, (40, 20)),
        "moving.gif": (RED, {"save_all": True, "append_images": [Image.new("RGB", (40, 20))] * 3}, (40, 20)),
        "palette.png": (RED.convert("P"), {}, (40, 20)),
        "two.bmp": (RED.convert("1"), {}, (40, 20)),
    }
    for name, (image, options, size) in cases.items():
        read = read_picture(str(saved(tmp_path, image, name, **options)))
        assert (read.mode, read.size) == ("RGB", size), name
    assert read_picture(str(tmp_path / "clear.png")).getpixel((0, 0)) == (255, 255, 255)
    first = read_picture(str(tmp_path / "moving.gif")).getpixel((0, 0))
    assert isinstance(first, tuple) and first[0] > 150


def broken_files(tmp_path: Path) -> list[Path]:
    whole = io.BytesIO()
    RED.resize((400, 400)).save(whole, "PNG")
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)  # 3.6 billion pixels in 60 bytes
    chunk = b"IHDR" + header
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    contents = {
        "cut.png": whole.getvalue()[:200],
        "empty.png": b"",
        "text.png": b"no picture at all",
        "page.svg": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
        "bomb.png": bomb,
        "script.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n(/etc/passwd) run\n",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return [tmp_path / name for name in contents]


def test_damaged_pictures_are_one_line(tmp_path: Path) -> None:
    for path in [*broken_files(tmp_path), tmp_path / "gone.png"]:
        with pytest.raises(DemoError, match=r"^picture: ") as caught:
            read_picture(str(path))
        assert "\n" not in str(caught.value) and str(tmp_path) not in str(caught.value), path.name


def test_size_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, RED.resize((5000, 100)), "wide.png")
    assert read_picture(path).size == (2048, 41)
    monkeypatch.setattr(picture, "MAX_PIXELS", 400_000)
    with pytest.raises(DemoError, match="5000 x 100 pixels"):
        read_picture(path)
    monkeypatch.setattr(picture, "MAX_UPLOAD_BYTES", 100)
    with pytest.raises(DemoError, match="MB; allowed are"):
        read_picture(path)


@pytest.mark.parametrize("question", ["", "   \n", None, 7, ["a"]])
def test_no_question(question: Any) -> None:
    with pytest.raises(DemoError, match="question: there is none"):
        make_sample(None, question)


def test_the_endpoint_takes_odd_pictures_and_refuses_broken_ones(client: Any, tmp_path: Path) -> None:
    from gradio_client import handle_file

    odd = saved(tmp_path, Image.new("RGBA", (300, 9), (0, 80, 0, 90)), "odd.png")
    answer = client.predict(handle_file(str(odd)), "How many stars are there?", 6, api_name="/compare")
    assert all(column["tokens"] for column in answer["columns"])
    for path in broken_files(tmp_path):
        if path.stat().st_size:
            with pytest.raises(Exception, match=r"picture: "):
                client.predict(handle_file(str(path)), "How many stars are there?", 6, api_name="/compare")


def digit(number: int) -> list[list[tuple[float, float]]]:
    """A plain digit as strokes in the unit square."""
    return {
        1: [[(0.3, 0.25), (0.55, 0.05), (0.55, 0.95)]],
        4: [[(0.5, 0.05), (0.2, 0.6), (0.85, 0.6)], [(0.65, 0.35), (0.65, 0.95)]],
        7: [[(0.2, 0.08), (0.8, 0.08), (0.45, 0.95)], [(0.35, 0.5), (0.75, 0.5)]],
    }[number]


@pytest.mark.parametrize("scale", [0.8, 0.35])
def test_the_models_read_drawn_digits(arena: Arena, scale: float) -> None:
    right = 0
    for seed in range(4):
        pad = sketch.new_pad(seed)
        cells = [place for place, word in enumerate(pad.words) if word == "empty"]
        strokes = [
            tuple(((place % 3 + 0.1 + scale * x) / 3, (place // 3 + 0.1 + scale * y) / 3) for x, y in stroke)
            for place, number in zip(cells, (1, 4, 7), strict=True)
            for stroke in digit(number)
        ]
        sample = make_sample(sketch.draw_on(pad, strokes), pad.question)
        *_, (column,) = race(arena, [arena["teacher"]], sample, Sampling())
        right += column.text.startswith("1+4+7=")
    assert right == 4


def test_drawing_changes_its_own_cells_alone() -> None:
    pad = sketch.new_pad(0)
    drawn = np.asarray(sketch.draw_on(pad, [((0.05, 0.05), (0.25, 0.3))]))
    bare = np.asarray(pad.image)
    assert np.array_equal(drawn[28:], bare[28:]) and np.array_equal(drawn[:, 28:], bare[:, 28:])
    assert not np.array_equal(drawn[:28, :28], bare[:28, :28])


points = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=5)


@given(st.lists(points, max_size=5))
def test_any_strokes_can_be_drawn(strokes: list[list[tuple[float, float]]]) -> None:
    pad = sketch.Pad(("empty",) * 9, "?", 0)
    assert sketch.draw_on(pad, sketch.parse_strokes(strokes)).size == (84, 84)


@pytest.mark.parametrize(
    "text",
    ["{", "[[1]]", '[["a"]]', "[[[1, 2]]]", "[[[0.5, NaN]]]", "[[[0.1, 0.2, 0.3]]]", "3", "[" * 100_000, 5, {"a": 1}],
)
def test_hostile_strokes(text: Any) -> None:
    with pytest.raises(DemoError, match=r"^drawing: "):
        sketch.parse_strokes(text)


def test_too_many_points() -> None:
    with pytest.raises(DemoError, match="20,000 points"):
        sketch.parse_strokes([[[0.5, 0.5]] * 20_001])
