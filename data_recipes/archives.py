"""Images that a row names by path: in a folder beside the data file, or inside a zip file that nobody unpacked."""

from __future__ import annotations

import os
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path

from data_recipes.types import RowError

MAX_IMAGE_BYTES = 256 * 2**20


def find_image(name: Path, folder: Path | None, archives: tuple[Path, ...]) -> Path | bytes:
    """The path of an image that a row names, or its bytes out of the first archive that has it.

    Looked for below `folder`; then, with archives, in the folder beside each that bears its name (it was unpacked),
    then in the archive. Without archives the path is given back unchecked: whoever decodes it says if it is missing.
    Raises RowError where archives were searched in vain, or hold a damaged or oversized file.
    """
    path = Path(folder or "", name)
    if not archives or path.is_file():
        return path
    for archive in archives:
        unpacked = archive.with_suffix("") / name
        if unpacked.is_file():
            return unpacked
        if archive.is_file() and (found := _read(archive, name)) is not None:
            return found
    searched = ", ".join(archive.name for archive in archives)
    raise RowError(f"image {str(name)!r:.120}: neither beside the data nor in {searched}", "image_not_found")


def _read(archive: Path, name: Path) -> bytes | None:
    try:
        file, entries = _opened(archive, os.getpid())
        wanted, stem = name.as_posix(), archive.stem
        for entry in (wanted, f"{stem}/{wanted}", wanted.removeprefix(f"{stem}/")):
            if entry in entries:
                if (size := file.getinfo(entry).file_size) > MAX_IMAGE_BYTES:
                    raise RowError(f"image {wanted!r:.120}: {size:,} bytes, more than the {MAX_IMAGE_BYTES:,} allowed")
                return file.read(entry)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise RowError(f"image {str(name)!r:.120}: unreadable in {archive.name}, {error}") from error
    return None


@lru_cache(maxsize=4)
def _opened(archive: Path, process: int) -> tuple[zipfile.ZipFile, frozenset[str]]:
    """Open once a process (forked ones would share one place in the file): reading a large directory takes seconds."""
    file = zipfile.ZipFile(archive)
    return file, frozenset(file.namelist())
