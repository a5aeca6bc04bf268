"""Where pictures come from: scikit-learn's digits, a .npz file, or a folder with one subfolder for each class."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from chimeralab import DataError
from chimeralab_plugins.tasks.prepared import write_once

DIGITS = "digits"
PLACE = "task.options.source"
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp"})
INSTALL = "pip install 'chimeralab[images]'"


@dataclass(frozen=True)
class Facts:
    """What is known of pictures before they are read: N of H · W pixels, each C numbers of 0 … values - 1."""

    shape: tuple[int, int, int, int]  # N H W C
    values: int
    names: tuple[str, ...]  # of the classes


@dataclass(frozen=True)
class Pictures:
    pixels: NDArray[np.uint8]  # N H W C
    labels: NDArray[np.int64]  # N


def facts(source: str) -> Facts:
    """Raises DataError: there are no such pictures, or they cannot be read."""
    if source == DIGITS:
        _require("sklearn", "the digits come with scikit-learn")
        return Facts((1797, 8, 8, 1), 17, tuple("0123456789"))
    path = Path(source).expanduser()
    if path.is_dir():
        return _folder_facts(path)
    if path.suffix == ".npz" and path.is_file():
        return _archive_facts(path, path.stat().st_mtime_ns)
    raise DataError(
        f"{source} is neither a folder nor a .npz file",
        place=PLACE,
        remedy=f"Give a folder of pictures by class, a .npz file with images and labels, or {DIGITS!r}",
    )


def read(source: str, cache: Path, report: Callable[[str], None]) -> Pictures:
    """The pictures. Those of a folder are decoded once, into the cache; several processes may do so at a time.

    Raises:
        DataError: a picture cannot be read, or is of another size.
    """
    if source == DIGITS:
        return _digits()
    path = Path(source).expanduser()
    if path.is_dir():
        return _decoded(path, cache, report)
    return _archive(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _digits() -> Pictures:
    from sklearn.datasets import load_digits

    pixels, digits = load_digits(return_X_y=True)
    return Pictures(pixels.astype(np.uint8).reshape(-1, 8, 8, 1), digits.astype(np.int64))


@lru_cache(maxsize=4)
def _archive_facts(path: Path, changed: int) -> Facts:
    """Reads the header of the images alone, and all labels."""
    try:
        with zipfile.ZipFile(path) as members, members.open("images.npy") as member:
            version = np.lib.format.read_magic(member)
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = header(member)
        with np.load(path, allow_pickle=False) as arrays:
            labels = arrays["labels"]
    except (KeyError, OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path} cannot be read: {error}", place=PLACE, remedy="Write it by numpy.savez(images=..., labels=...)"
        ) from None
    if dtype != np.uint8 or len(shape) not in (3, 4) or 0 in shape:
        raise DataError(f"its images are {dtype} of shape {shape}", place=PLACE, remedy="Give uint8, N H W or N H W C")
    if labels.shape != shape[:1] or labels.dtype.kind not in "iu" or labels.min() < 0:
        raise DataError(
            f"its labels are {labels.dtype} of shape {labels.shape}", place=PLACE, remedy="Give N integers from 0"
        )
    names = tuple(str(label) for label in range(int(labels.max()) + 1))
    return Facts((*shape, 1)[:4] if len(shape) == 3 else shape, 256, names)


@lru_cache(maxsize=1)
def _archive(path: Path, changed: int) -> Pictures:
    with np.load(path, allow_pickle=False) as arrays:
        images, labels = arrays["images"], arrays["labels"]
    return Pictures(images if images.ndim == 4 else images[..., None], labels.astype(np.int64))


def _folder_facts(folder: Path) -> Facts:
    _require("PIL", "pictures are read by Pillow")
    files = _files(folder)
    first = _open(files[0][0])
    height, width, channels = first.shape
    return Facts((len(files), height, width, channels), 256, _classes(folder))


def _classes(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(part.name for part in folder.iterdir() if part.is_dir() and not part.name.startswith(".")))


def _files(folder: Path) -> list[tuple[Path, int]]:
    """Pictures with their classes, in the order of their names."""
    found = [
        (file, label)
        for label, name in enumerate(_classes(folder))
        for file in sorted((folder / name).rglob("*"))
        if file.suffix.lower() in SUFFIXES
    ]
    if not found:
        raise DataError(
            f"there is no picture in a subfolder of {folder}",
            place=PLACE,
            remedy="Make one subfolder for each class, with PNG or JPEG files",
        )
    return found


def _open(file: Path) -> NDArray[np.uint8]:  # H W C
    """One number a pixel where the file is grey, else three."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as image:
            pixels = np.asarray(image.convert("L" if image.mode in ("1", "L", "LA", "I", "I;16") else "RGB"))
    except (OSError, UnidentifiedImageError) as error:
        raise DataError(f"{file} cannot be read: {error}", place=PLACE) from None
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _decoded(folder: Path, cache: Path, report: Callable[[str], None]) -> Pictures:
    files = _files(folder)
    marks = [(str(file.relative_to(folder)), file.stat().st_size, file.stat().st_mtime_ns) for file, _ in files]
    name = hashlib.blake2b(repr((str(folder), marks)).encode(), digest_size=12).hexdigest()
    kept = cache / "pictures" / name

    def fill(draft: Path) -> None:
        report(f"Reading {len(files)} pictures of {folder}")
        np.save(draft / "pixels.npy", _alike(files))
        np.save(draft / "labels.npy", np.array([label for _, label in files], np.int64))

    write_once(kept, fill)
    return Pictures(np.load(kept / "pixels.npy", mmap_mode="r"), np.load(kept / "labels.npy"))


def _alike(files: list[tuple[Path, int]]) -> NDArray[np.uint8]:  # N H W C
    first = _open(files[0][0])
    pixels = np.empty((len(files), *first.shape), np.uint8)
    for place, (file, _) in enumerate(files):
        picture = _open(file)
        if picture.shape != first.shape:
            raise DataError(
                f"{file} has {_said(picture.shape)}, and {files[0][0].name} {_said(first.shape)}",
                place=PLACE,
                remedy="Scale all pictures to one size, and make all grey or all coloured",
            )
        pixels[place] = picture
    return pixels


def _said(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} · {shape[0]} {'grey' if shape[2] == 1 else 'coloured'} pixels"


def _require(module: str, reason: str) -> None:
    if find_spec(module) is None:
        raise DataError(f"{reason}, which is not installed", place=PLACE, remedy=INSTALL)
