"""The cache on disk: compiled programs by the digest of everything that they depend on.

    put(key, data)        key is a text such as the SHA-256 of graph, target and versions (see ``digest``)
    get(key) -> bytes     or None

The folder is the knob ``cache_dir`` (``XLC_CACHE_DIR``; default ``~/.cache/xlc``; empty: no cache). A file holds a magic word,
the length and the SHA-256 of its data, and the data; what does not agree is removed and made again. Files are written beside
their place and renamed, so that other processes see whole files only; the least recently used ones go when the folder exceeds the
knob ``cache_bytes``. A folder that cannot be used is the same as no cache: nothing here raises. """

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time
from functools import lru_cache
from pathlib import Path

from xlc import config

MAGIC = b"xlc-cache-1\n"
_HEADER = len(MAGIC) + 8 + 32
_SWEEP = 64  # every so many files written, the folder's size is looked at
_TOUCH = 3600.0  # seconds after which a use is worth noting in the file's time
_written = 0


def digest(data: bytes) -> str:
    """A key for this content."""
    return hashlib.sha256(data).hexdigest()


def folder() -> Path | None:
    """Where the cache lies; None where there is none."""
    place = str(config.cache_dir or "")
    return Path(os.path.expanduser(place)) if place else None


def enabled() -> bool:
    return folder() is not None


@lru_cache(1)
def version() -> str:
    """Identifies this xlc in every key: the name, size and time of each of its files, so that an edited compiler does not find
    its old code."""
    package = Path(__file__).resolve().parent.parent
    stamps = []
    for file in sorted(package.rglob("*.py")):
        with contextlib.suppress(OSError):
            status = file.stat()
            stamps.append(f"{file.relative_to(package)} {status.st_size} {status.st_mtime_ns}")
    return digest("\n".join(stamps).encode())


def _path(place: Path, key: str) -> Path:
    name = digest(f"{version()}\n{key}".encode())
    return place / name[:2] / name[2:]


def get(key: str) -> bytes | None:
    """The data stored under the key, whole, or None."""
    place = folder()
    if place is None:
        return None
    path = _path(place, key)
    try:
        raw = path.read_bytes()
    except OSError:
        return None
    data = raw[_HEADER:]
    head = MAGIC + len(data).to_bytes(8, "little") + hashlib.sha256(data).digest()
    with contextlib.suppress(OSError):
        if raw[:_HEADER] != head:
            path.unlink()
            return None
        if path.stat().st_mtime < time.time() - _TOUCH:
            os.utime(path)  # the order of removal is by last use
    return data


def put(key: str, data: bytes) -> None:
    """Store the data under the key, if there is a usable folder."""
    global _written
    place = folder()
    if place is None:
        return
    path = _path(place, key)
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
        with os.fdopen(handle, "wb") as file:
            file.write(MAGIC + len(data).to_bytes(8, "little") + hashlib.sha256(data).digest())
            file.write(data)
        os.replace(temporary, path)
    except OSError:
        if temporary:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        return
    if _written % _SWEEP == 0:
        sweep(place, config.cache_bytes)
    _written += 1


def sweep(place: Path, limit: int) -> None:
    """Remove the least recently used files until the rest is below nine tenths of the limit, and what interrupted writers left."""
    files = []
    for path in place.glob("??/*"):
        with contextlib.suppress(OSError):
            status = path.stat()
            if path.name.startswith(".new-") and status.st_mtime < time.time() - _TOUCH:
                path.unlink()
            else:
                files.append((status.st_mtime, status.st_size, path))
    total = sum(size for _, size, _ in files)
    if total <= limit:
        return
    for _, size, path in sorted(files):
        if total <= limit * 9 // 10:
            return
        with contextlib.suppress(OSError):
            path.unlink()
            total -= size
