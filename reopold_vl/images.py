"""From whatever a row holds to an upright RGB picture, and from there to the size that the vision tower takes.

Student, teacher, evaluation and demo all load images here, so a picture cannot look different to two of them.
"""

from __future__ import annotations

import base64
import math
import struct
import urllib.parse
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.request import url2pathname

from PIL import Image, ImageOps, UnidentifiedImageError

MAX_IMAGE_PIXELS = 178_956_970
"""Larger pictures are refused before a pixel is decoded; the point where Pillow, untouched, raises as well."""

MAX_URL_BYTES = 64 * 2**20
URL_TIMEOUT_SECONDS = 30

# No EPS or PDF: Pillow hands those to an external interpreter, which a picture out of a data set must never reach.
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "ICO", "JPEG2000", "AVIF", "TGA")

# What Pillow's readers raise on damaged files, depending on the format and on where the damage is.
_BAD_DATA = (ValueError, SyntaxError, LookupError, TypeError, OverflowError, struct.error, zlib.error)
_UNREADABLE = (OSError, EOFError, MemoryError, NotImplementedError, Image.DecompressionBombError, *_BAD_DATA)


class ImageError(ValueError):
    """An image that cannot be used; the message is one line naming the image and the reason."""


def load_image(source: Any, *, allow_url: bool = False, base_dir: Path | None = None) -> Image.Image:
    """Load one image as upright 8-bit RGB that shares nothing with `source`.

    `source` is a PIL image, a path (relative ones start at `base_dir`), a `file://` URL, encoded bytes, a dict
    `{"bytes": ..., "path": ...}` as the `datasets` library stores images, a data URI, or, only with `allow_url`, an
    http(s) URL. The camera's orientation is applied (a broken note of it is ignored: the pixels are fine);
    transparency is composed on white; 16-bit grey is scaled, not clipped; of an animation the first frame is taken.

    Raises ImageError for anything missing, unreadable or truncated, or larger than MAX_IMAGE_PIXELS.
    """
    with _opened(source, allow_url=allow_url, base_dir=base_dir) as image:
        image.load()
        return _to_rgb(_upright(image))


def image_size(source: Any, *, allow_url: bool = False, base_dir: Path | None = None) -> tuple[int, int]:
    """Read (width, height) in pixels, as stored, from the header alone; takes and raises what `load_image` does."""
    with _opened(source, allow_url=allow_url, base_dir=base_dir) as image:
        return image.size


def image_reference(
    source: Any, *, allow_url: bool = False, base_dir: Path | None = None
) -> Image.Image | Path | bytes:
    """Reduce any source to something self-contained: a PIL image, a path with `base_dir` applied, or encoded bytes.

    Nothing is decoded; an allowed URL is fetched here. Raises ImageError for an unknown or empty source.
    """
    if isinstance(source, Image.Image):
        return source
    if isinstance(source, dict):
        source = source.get("bytes") or source.get("path")
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source)
    if isinstance(source, str) and source.startswith("data:"):
        return _data_uri_bytes(source)
    if isinstance(source, str) and source.lower().startswith(("http://", "https://")):
        return _fetch(source, allow_url)
    if isinstance(source, str) and source.startswith("file://"):
        source = url2pathname(source.removeprefix("file://").removeprefix("localhost"))
    if isinstance(source, str | Path) and str(source).strip():
        return Path(base_dir or "", source)
    allowed = "a PIL image, path, bytes, {'bytes', 'path'} dict, data URI or URL"
    raise ImageError(f"image: nothing to load in {source!r:.80}; give {allowed}")


def fit_image(image: Image.Image, *, factor: int, min_pixels: int, max_pixels: int) -> Image.Image:
    """Resize to what the vision tower takes: both sides multiples of `factor`, the area within the pixel budget.

    `factor` is patch_size * merge_size. The resizing is qwen-vl-utils' own (`smart_resize`, `fetch_image`). Shapes
    that it refuses or would round to nothing (a side shorter than `factor`, one side over 200 times the other, a
    strip too thin for the budget) are first centred on white, after shrinking where the strip is very long.

    Raises ImageError where `factor`, `min_pixels` and `max_pixels` allow no size at all.
    """
    if factor < 2 or factor % 2:
        raise ImageError(f"factor={factor} must be an even number of pixels, patch_size * merge_size")
    if not 0 < min_pixels <= max_pixels or max_pixels < factor * factor:
        limits = f"0 < min_pixels <= max_pixels and max_pixels >= {factor * factor}, one patch of factor={factor}"
        raise ImageError(f"pixel budget min_pixels={min_pixels}, max_pixels={max_pixels} must satisfy {limits}")
    from reopold_vl.torchvision_shim import make_torchvision_usable

    make_torchvision_usable()
    from qwen_vl_utils import fetch_image

    image = image if image.mode == "RGB" else load_image(image)
    room = _pad_for_resize(image, factor, min_pixels, max_pixels)
    # fetch_image multiplies the patch size by its fixed merge size of 2.
    request: dict[str, Any] = {"image": room, "min_pixels": min_pixels, "max_pixels": max_pixels}
    return fetch_image(request, image_patch_size=factor // 2)


def _pad_for_resize(image: Image.Image, factor: int, min_pixels: int, max_pixels: int) -> Image.Image:
    from qwen_vl_utils.vision_process import MAX_RATIO, smart_resize

    def acceptable(width: int, height: int) -> bool:
        short, long = sorted((width, height))
        if short < factor or long > MAX_RATIO * short:
            return False
        return 0 not in smart_resize(height, width, factor=factor, min_pixels=min_pixels, max_pixels=max_pixels)

    if acceptable(*image.size):
        return image
    # No result can be longer than this, and without the limit the white around a long line could fill the memory.
    longest = min(math.isqrt(MAX_RATIO * max_pixels), max_pixels // factor)
    if max(image.size) > longest:
        scale = longest / max(image.size)
        width, height = (max(1, round(side * scale)) for side in image.size)
        image = image.resize((width, height))
    short = max(factor, math.ceil(max(image.size) / MAX_RATIO))
    while not acceptable(max(image.width, short), max(image.height, short)):
        short = max(short + 1, math.ceil(max(image.size) * factor * factor / max_pixels))
    canvas = Image.new("RGB", (max(image.width, short), max(image.height, short)), "white")
    canvas.paste(image, ((canvas.width - image.width) // 2, (canvas.height - image.height) // 2))
    return canvas


@contextmanager
def _opened(source: Any, *, allow_url: bool, base_dir: Path | None) -> Iterator[Image.Image]:
    """Open without decoding; every failure, also one in the body of the `with`, leaves as ImageError."""
    try:
        reference = image_reference(source, allow_url=allow_url, base_dir=base_dir)
        if isinstance(reference, Image.Image):
            _check_area(reference)
            yield reference
            return
        file = BytesIO(reference) if isinstance(reference, bytes) else reference
        Image.init()
        with Image.open(file, formats=[name for name in FORMATS if name in Image.OPEN]) as image:
            _check_area(image)
            yield image
    except ImageError:
        raise
    except _UNREADABLE as error:
        raise ImageError(f"image {_name(source)}: {_reason(error)}") from error


def _check_area(image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_IMAGE_PIXELS:
        raise Image.DecompressionBombError(f"{width} x {height} pixels, more than the {MAX_IMAGE_PIXELS} allowed")
    if not width or not height:
        raise ValueError(f"{width} x {height} pixels, there is nothing to see")


def _name(source: Any) -> str:
    if isinstance(source, dict):
        source = source.get("path") or source.get("bytes")
    if isinstance(source, bytes | bytearray | memoryview):
        return f"({len(source)} bytes)"
    if isinstance(source, Image.Image):
        return f"(PIL image of mode {source.mode})"
    text = " ".join(str(source).split())
    return repr(text if len(text) <= 120 else text[:60] + "..." + text[-40:])


def _reason(error: BaseException) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, UnidentifiedImageError):
        return "not an image, or of a format that is not read here"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return "unreadable, " + " ".join(str(error).split()) if str(error) else f"unreadable ({type(error).__name__})"


def _data_uri_bytes(uri: str) -> bytes:
    header, comma, payload = uri.partition(",")
    if not comma:
        raise ImageError(f"image {uri[:40]!r}: a data URI needs a comma before its data")
    data = urllib.parse.unquote_to_bytes(payload)
    if not header.lower().endswith(";base64"):
        return data
    try:
        return base64.b64decode(b"".join(data.split()), validate=True)
    except ValueError as error:
        raise ImageError(f"image {uri[:40]!r}: the data URI is not valid base64 ({error})") from error


def _fetch(url: str, allow_url: bool) -> bytes:
    if not allow_url:
        raise ImageError(
            f"image {_name(url)}: URLs are not fetched unless asked; pass allow_url=True, or store the file"
        )
    import requests

    try:
        with requests.get(url, stream=True, timeout=URL_TIMEOUT_SECONDS) as response:
            response.raise_for_status()
            data = bytearray()
            for chunk in response.iter_content(2**16):
                data += chunk
                if len(data) > MAX_URL_BYTES:
                    raise ImageError(f"image {_name(url)}: more than the {MAX_URL_BYTES} bytes allowed")
    except requests.RequestException as error:
        raise ImageError(f"image {_name(url)}: {_reason(error)}") from error
    return bytes(data)


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except _UNREADABLE:
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        return _grey_to_8bit(image).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    white = Image.new("RGB", rgba.size, "white")
    white.paste(rgba, mask=rgba.getchannel("A"))
    return white


def _grey_to_8bit(image: Image.Image) -> Image.Image:
    """Scale grey of 16 bits (0..65535) or floats (0..1 or 0..255) to 8 bits; Pillow's own conversion would clip."""
    import numpy as np

    values = np.asarray(image)
    top = 65535.0 if image.mode != "F" else 1.0 if values.max() <= 1 else 255.0
    if not (values.min() >= 0 and values.max() <= top):
        raise ValueError(f"grey values {values.min()}..{values.max()} of mode {image.mode} are outside 0..{top:.0f}")
    grey = np.rint(values.astype(np.float32) * (255 / top)).astype(np.uint8)
    if (see_through := image.info.get("transparency")) is not None:
        grey[values == see_through] = 255
    return Image.fromarray(grey)
