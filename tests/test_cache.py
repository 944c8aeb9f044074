"""The cache on disk: whole files or none, bounded, and never in the way."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import xlc
from xlc import config
from xlc.run import cache
from xlc.transform import calls


@pytest.fixture
def place(tmp_path: Path):
    with config.context(cache_dir=str(tmp_path / "c")):
        yield tmp_path / "c"


def files(place: Path) -> list[Path]:
    return sorted(p for p in place.rglob("*") if p.is_file())


def test_round_trip(place: Path) -> None:
    assert cache.enabled() and cache.get("k") is None
    cache.put("k", b"data\0" * 1000)
    assert cache.get("k") == b"data\0" * 1000
    cache.put("k", b"")
    assert cache.get("k") == b"" and cache.get("other") is None
    assert len(files(place)) == 1


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b + b"x", lambda b: b[:60] + b"\xff" + b[61:], lambda b: b"",
                                    lambda b: b"junk" * 100])
def test_damage_is_noticed_and_replaced(place: Path, damage) -> None:
    cache.put("k", b"data" * 100)
    (path,) = files(place)
    path.write_bytes(damage(path.read_bytes()))
    assert cache.get("k") is None
    assert not path.exists()
    cache.put("k", b"again")
    assert cache.get("k") == b"again"


@pytest.mark.parametrize("kind", ["custom_vjp", "checkpoint"])
def test_functions_that_are_one_node_are_told_apart(place: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Two processes that number their calls alike, and whose programs differ inside of such a call alone."""
    for f in (np.sin, np.cos):
        monkeypatch.setattr(calls, "_numbers", itertools.count())
        if kind == "checkpoint":
            call = xlc.checkpoint(lambda x, f=f: f(x))
        else:
            call = xlc.custom_vjp(lambda x, f=f: f(x)).defvjp(lambda x: (x, x), lambda r, ct: (ct,))
        np.testing.assert_allclose(xlc.jit(lambda x: call(x) + 1)(np.ones(3)), f(np.ones(3)) + 1)  # noqa: B023  called at once
    assert len(files(place)) == 2


def test_disabled(tmp_path: Path) -> None:
    with config.context(cache_dir=""):
        assert not cache.enabled()
        cache.put("k", b"data")
        assert cache.get("k") is None


def test_unusable_folder(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with config.context(cache_dir=str(blocked)):
        cache.put("k", b"data")
        assert cache.get("k") is None


def test_least_recently_used_go_first(place: Path) -> None:
    for k in range(10):
        cache.put(str(k), bytes([k]) * 1000)
    by_key = {k: cache._path(place, str(k)) for k in range(10)}
    for k, path in by_key.items():
        os.utime(path, (1e9 + k, 1e9 + k))
    assert cache.get("0") is not None  # read now: the oldest becomes the newest
    cache.sweep(place, 5000)
    left = {k for k, path in by_key.items() if path.exists()}
    assert left == {0, 7, 8, 9}


def test_interrupted_writers_leave_nothing(place: Path) -> None:
    cache.put("k", b"data")
    stale = files(place)[0].parent / ".new-abandoned"
    stale.write_bytes(b"half")
    os.utime(stale, (1e9, 1e9))
    cache.sweep(place, 1 << 30)
    assert not stale.exists() and cache.get("k") == b"data"


def test_threads_and_processes(place: Path) -> None:
    """Writers and readers at once: what is read is whole."""
    script = ("import sys; from xlc.run import cache\n"
              "for n in range(60):\n"
              "    cache.put(str(n % 3), bytes([n % 3]) * 50000)\n"
              "    found = cache.get(str((n + 1) % 3))\n"
              "    assert found is None or found == bytes([(n + 1) % 3]) * 50000\n")
    others = [subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "XLC_CACHE_DIR": str(place)}) for _ in range(2)]

    bad: list[object] = []

    def work() -> None:
        with config.context(cache_dir=str(place)):
            for n in range(60):
                cache.put(str(n % 3), bytes([n % 3]) * 50000)
                found = cache.get(str(n % 3))
                if found is not None and found != bytes([n % 3]) * 50000:
                    bad.append(found)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert [p.wait() for p in others] == [0, 0] and not bad
    assert all(not p.name.startswith(".new-") for p in files(place))


def test_key_names_the_version(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    cache.put("k", b"data")
    monkeypatch.setattr(cache, "version", lambda: "another xlc")
    assert cache.get("k") is None
