"""Checkpoints: pytrees of arrays as safetensors files, which other programs read too and which hold no code.

    save("model.safetensors", params)                     each leaf under its place in the tree: "layers.0.w"
    params = load("model.safetensors", like=params)       every name, dtype and shape is checked

A file is written beside its place, forced to the disk, and renamed: whoever reads sees the old one or the new one. ``Checkpoints`` writes
whole runs, from which ``fit(resume=...)`` goes on.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from .. import tree
from ..errors import XlcTypeError, XlcValueError
from ..frontend.devices import to_host
from .extras import extra
from .run import Callback, Run

_DTYPES = {"BOOL": np.bool_, "I8": np.int8, "I16": np.int16, "I32": np.int32, "I64": np.int64, "U8": np.uint8, "U16": np.uint16,
           "U32": np.uint32, "U64": np.uint64, "F16": np.float16, "BF16": ml_dtypes.bfloat16, "F32": np.float32, "F64": np.float64}
_SHOWN = 8  # differences that an error lists


def save(path: Any, value: Any, **notes: str) -> Path:
    """Write a pytree of arrays and numbers, atomically. ``notes`` (texts) go into the file's metadata, beside "structure", the nesting.
    Raises XlcTypeError for a leaf that is no array, OSError from the disk: then a file that was there is still there."""
    path = Path(path)
    arrays = dict(zip(tree.names(value), map(_stored, tree.leaves(value)), strict=True))
    texts = {"format": "xlc", "structure": str(tree.flatten(value)[1]), **notes}
    written = extra("safetensors.numpy", "checkpoints").save(arrays, metadata=texts)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(draft, "wb") as file:
            file.write(written)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    _sync(path.parent)
    return path


def _stored(leaf: Any) -> np.ndarray:
    array = np.asarray(to_host(leaf), order="C")
    if array.dtype.newbyteorder("=") not in map(np.dtype, _DTYPES.values()):
        raise XlcTypeError(f"a checkpoint holds arrays and numbers, found {type(leaf).__name__} of dtype {array.dtype}")
    return array


def _sync(folder: Path) -> None:
    """The rename itself, on the disk (where folders can be opened: not on Windows)."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def load(path: Any, like: Any, *, part: str = "") -> Any:
    """The pytree of a file, nested as ``like``, whose leaves (arrays, numbers) say which dtypes and shapes are expected.

    part  what belongs to one branch of the file's tree: ``load("run/step-000000900.safetensors", params, part="state.params")``

    Raises XlcValueError that lists every name that is missing or not expected, every dtype and shape that differs; FileNotFoundError."""
    found = _read(Path(path))
    if part:
        found = {name.removeprefix(part).removeprefix(".") or "value": a for name, a in found.items() if f"{name}.".startswith(f"{part}.")}
    leaves, nest = tree.flatten(like)
    expected = dict(zip(tree.names(like), leaves, strict=True))
    problems = [f"{name} is missing" for name in expected.keys() - found.keys()]
    problems += [f"{name} is not expected" for name in found.keys() - expected.keys()]
    for name in expected.keys() & found.keys():
        want, have = _type(np.asarray(to_host(expected[name]))), _type(found[name])
        problems += [f"{name} is {have}, expected {want}"] if want != have else []
    if problems:
        more = f"\n  and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise XlcValueError(f"{path}{f', its part {part!r},' if part else ''} does not hold what is expected:\n  " +
                            "\n  ".join(sorted(problems)[:_SHOWN]) + more)
    return tree.unflatten(nest, [type(leaf)(found[name]) if type(leaf) in (bool, int, float) else found[name]
                                 for name, leaf in expected.items()])


def _type(array: np.ndarray) -> str:
    return f"{array.dtype.newbyteorder('=')}{list(array.shape)}"


def _read(path: Path) -> dict[str, np.ndarray]:
    safetensors = extra("safetensors", "checkpoints")
    try:
        entries = dict(safetensors.deserialize(path.read_bytes()))
        return {name: np.frombuffer(e["data"], _DTYPES[e["dtype"]]).reshape(e["shape"]) for name, e in entries.items()}
    except safetensors.SafetensorError as error:
        raise XlcValueError(f"{path} is no complete safetensors file ({error})") from None
    except KeyError as error:
        raise XlcValueError(f"{path} holds an array of dtype {error}, which NumPy does not have") from None


def metadata(path: Any) -> dict[str, str]:
    """The texts beside the arrays: "structure" and the notes given to ``save``."""
    safetensors = extra("safetensors", "checkpoints")
    if not Path(path).exists():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    try:
        with safetensors.safe_open(os.fspath(path), "np") as file:
            return dict(file.metadata() or {})
    except safetensors.SafetensorError as error:
        raise XlcValueError(f"{path} is no complete safetensors file ({error})") from None


# ------------------------------------------------------------------------------------------------ runs


class Checkpoints(Callback):
    """A callback that writes the run into ``folder``, as step-000000900.safetensors.

    every        after so many epochs (0: never)
    every_steps  also after so many steps
    keep         the last so many files stay (None: all)

    The run that begins must not be behind what is in the folder: XlcValueError, rather than two runs that remove each other's files."""

    def __init__(self, folder: Any, *, every: int = 1, every_steps: int = 0, keep: int | None = 3):
        if every < 0 or every_steps < 0 or (keep is not None and keep < 1):
            raise XlcValueError("Checkpoints expects every >= 0, every_steps >= 0, keep >= 1 or None; found "
                                f"every={every}, every_steps={every_steps}, keep={keep}")
        self.folder, self.every, self.every_steps, self.keep = Path(folder), every, every_steps, keep

    def on_start(self, run: Run, epochs: int, batches: int | None) -> None:
        extra("safetensors", "checkpoints")  # now, and not after the first epoch
        self.folder.mkdir(parents=True, exist_ok=True)
        for left in self.folder.glob(".step-*.tmp"):  # of a process that was killed while it wrote
            left.unlink(missing_ok=True)
        newest = latest(self.folder)
        if newest is not None and _number(newest) > run.step:
            raise XlcValueError(f"{self.folder} has checkpoints of a run up to step {_number(newest)}, and this one is at step {run.step}; "
                                "go on with fit(..., resume=folder), or choose an empty folder")

    def on_step(self, run: Run, metrics: Mapping[str, float], program: Callable[[], Any]) -> None:
        if self.every_steps and run.step % self.every_steps == 0:
            self.write(run)

    def on_epoch(self, run: Run) -> None:
        if self.every and run.epoch % self.every == 0:
            self.write(run)

    def write(self, run: Run) -> Path:
        """Write the run as it is now, and remove what is too old."""
        arrays = {k: v for k, v in vars(run).items() if k in ("state", "best") and v is not None}
        record = {k: v for k, v in vars(run).items() if k not in ("state", "best")}
        path = save(self.folder / f"step-{run.step:09d}.safetensors", arrays, step=str(run.step), arrays=" ".join(arrays),
                    run=json.dumps(record))
        for old in _numbered(self.folder)[:-self.keep] if self.keep else ():
            old.unlink()
        return path


def _numbered(folder: Path) -> list[Path]:
    return sorted((p for p in folder.glob("step-*.safetensors") if re.fullmatch(r"step-\d+", p.stem)), key=_number)


def _number(path: Path) -> int:
    return int(path.stem.removeprefix("step-"))


def latest(folder: Any) -> Path | None:
    """The newest checkpoint in a folder of ``Checkpoints``, None if there is none."""
    found = _numbered(Path(folder))
    return found[-1] if found else None


def read_run(place: Any, state: Any) -> Run | None:
    """The run in a file, or in the newest file of a folder (None if there is none); its state is nested as ``state``."""
    path = Path(place)
    if path.is_dir() or path.suffix != ".safetensors":
        found = latest(path)
        if found is None:
            return None
        path = found
    notes = metadata(path)
    try:
        run, kept = Run(None, **json.loads(notes["run"])), notes["arrays"].split()
    except (KeyError, TypeError, ValueError):
        raise XlcValueError(f"{path} holds arrays and no run that goes on; write it with Checkpoints, or load it with "
                            "xlc.train.load") from None
    found = load(path, dict.fromkeys(kept, tree.map(lambda leaf: np.asarray(to_host(leaf)), state)))
    run.state, run.best = found["state"], found.get("best")
    return run
