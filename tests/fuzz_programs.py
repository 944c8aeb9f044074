"""Random NumPy programs: the same source runs on NumPy and under ``xlc.jit``.

    source, arguments = random_program(seed)

A program is written line by line; a line enters when NumPy can run it on the values at hand. The oracle is NumPy; how far the results may
differ is taken from the noisy interpretation of the traced graph (``fuzz_oracle``).
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import ml_dtypes
import numpy as np
from fuzz_graphs import sample
from fuzz_oracle import Expected, wrong

import xlc
import xlc.nn
import xlc.numpy as xnp
from xlc.frontend.tree import flatten
from xlc.ir.node import Node
from xlc.ir.types import DTYPES, dtype_of

UNARY = (
    "np.exp({0})",
    "np.tanh({0})",
    "np.abs({0})",
    "-{0}",
    "np.sqrt(np.abs({0}))",
    "np.floor({0})",
    "np.sign({0})",
    "np.square({0})",
    "~{0}",
    "np.sin({0})",
    "np.log1p(np.abs({0}))",
    "np.isnan({0})",
    "np.logical_not({0})",
    "{0}.astype({dtype})",
    "np.rint({0})",
    "{0} * 2",
    "{0} + 1.5",
    "1 - {0}",
    "{0} // 3",
    "{0} % 4",
    "{0} ** 2",
    "2 ** {0}",
    "{0} / 7",
    "{0} > 1",
    "np.clip({0}, -1, 2)",
    "np.nan_to_num({0})",
    "np.cbrt({0})",
    "np.arctan({0})",
    "{0} << 1",
    "{0} >> 1",
    "np.positive({0})",
    "np.reciprocal({0} + 9)",
)
BINARY = (
    "{0} + {1}",
    "{0} - {1}",
    "{0} * {1}",
    "{0} / {1}",
    "{0} // {1}",
    "{0} % {1}",
    "np.maximum({0}, {1})",
    "np.minimum({0}, {1})",
    "{0} < {1}",
    "{0} == {1}",
    "{0} & {1}",
    "{0} | {1}",
    "{0} ^ {1}",
    "np.where({0} > {1}, {0}, {1})",
    "np.logaddexp({0}, {1})",
    "np.arctan2({0}, {1})",
    "np.hypot({0}, {1})",
    "np.copysign({0}, {1})",
    "np.logical_or({0}, {1})",
    "np.fmax({0}, {1})",
    "np.float_power(np.abs({0}) + 1, {1})",
    "np.outer({0}, {1})",
    "{0} @ {1}",
    "{0} @ {0}.T",
    "{0}.T @ {1}",
    "{0} @ {1}.T",
    "np.tensordot({0}, {1}, 1)",
    "np.concatenate([{0}, {1}], {axis})",
    "np.stack([{0}, {1}], {axis})",
    "np.vdot({0}, {1})",
    "np.einsum('ij,kj->ik', {0}, {1})",
    "np.einsum('ij,ij->j', {0}, {1})",
    "np.einsum('bij,bjk->bik', {0}, {1})",
    "np.inner({0}, {1})",
    "np.take({0}, {1}.astype(int) % 3, {axis}, mode='clip')",
    "np.append({0}, {1})",
    "np.kron({0}, {1})",
)
SHAPES = (
    "{0}.T",
    "{0}.reshape(-1)",
    "{0}[None]",
    "{0}[..., None]",
    "{0}[::-1]",
    "{0}[1:]",
    "{0}[:, ::2]",
    "{0}[..., ::-1]",
    "{0}[0]",
    "{0}[-1]",
    "{0}[..., -2:]",
    "np.swapaxes({0}, 0, -1)",
    "np.moveaxis({0}, 0, -1)",
    "np.flip({0}, {axis})",
    "np.roll({0}, 2, {axis})",
    "np.pad({0}, 1)",
    "np.pad({0}, (2, 0), constant_values=3)",
    "np.repeat({0}, 2, {axis})",
    "np.tile({0}, 2)",
    "np.squeeze({0})",
    "np.broadcast_to({0}, (2, *{0}.shape))",
    "np.expand_dims({0}, {axis})",
    "np.concatenate([{0}[1:], {0}[:1]])",
    "{0}[..., 1:-1]",
    "np.tril({0})",
    "np.triu({0}, 1)",
    "np.diagonal({0})",
    "np.rot90({0})",
    "{0}.ravel()[::3]",
    "{0}.reshape({0}.shape[::-1])",
    "np.split({0}, [1, 2])[1]",
    "np.atleast_2d({0})",
    "{0}[[0, -1]]",
    "{0}[:, [1, 0, 1]]",
    "{0}[np.array([[0, 1], [1, 0]])]",
    "np.broadcast_to({0}[..., :1], {0}.shape)",
    "np.hstack([{0}, {0}])",
    "np.diff({0}, axis={axis})",
)
REDUCTIONS = tuple(
    f"np.{f}({{0}}, {arguments})"
    for f in ("sum", "max", "min", "mean", "prod", "any", "all", "argmax", "argmin", "var", "std", "ptp")
    for arguments in ("axis={axis}", "axis=None", "axis={axis}, keepdims=True", "axis=-1")
) + (
    "np.cumsum({0}, {axis})",
    "np.cumprod({0}, {axis})",
    "np.sort({0}, {axis})",
    "np.argsort({0}, {axis}, kind='stable')",
    "{0} - {0}.mean({axis}, keepdims=True)",
    "{0} / np.sum(np.abs({0}) + 1, axis={axis}, keepdims=True)",
    "np.count_nonzero({0}, axis={axis})",
    "np.linalg.norm({0})",
    "np.average({0}, axis={axis})",
    "np.exp({0} - {0}.max(-1, keepdims=True))",
    "np.trace({0})",
    "np.max({0}, axis=(0, -1))",
    "np.sum({0}, axis=(0, 1))",
    "np.nansum({0}, axis={axis})",
    "np.median({0}, axis={axis})",
)
KINDS = {"unary": (UNARY, 1), "binary": (BINARY, 2), "shapes": (SHAPES, 1), "reductions": (REDUCTIONS, 1)}
NAMES = {"np": np, "xnp": xnp, "xlc": xlc, "bfloat16": ml_dtypes.bfloat16}
LARGEST = 1 << 15


class Program:
    """Lines that each assign one name, and the names that are returned."""

    def __init__(self, arguments: dict[str, np.ndarray], lines: Sequence[tuple[str, str]], results: Sequence[str]):
        self.arguments, self.lines, self.results = arguments, list(lines), list(results)

    @property
    def source(self) -> str:
        body = [f"    {name} = {text}" for name, text in self.lines]
        return "\n".join([f"def f({', '.join(self.arguments)}):", *body, f"    return [{', '.join(self.results)}]", ""])

    def function(self) -> Callable[..., Any]:
        space: dict[str, Any] = dict(NAMES)
        exec(compile(self.source, "<fuzz>", "exec"), space)
        found: Callable[..., Any] = space["f"]
        return found


def _strided(r: random.Random, a: np.ndarray) -> np.ndarray:
    """The same values in other memory: transposed, reversed, read-only, with gaps."""
    kind = r.randrange(6)
    if kind == 0 and a.ndim:
        return np.ascontiguousarray(a[::-1])[::-1]
    if kind == 1 and a.ndim > 1:
        return np.asfortranarray(a)
    if kind == 2 and a.ndim:
        wide = np.zeros((*a.shape[:-1], a.shape[-1] * 2), a.dtype)
        wide[..., ::2] = a
        return wide[..., ::2]
    if kind == 3:
        a = a.copy()
        a.flags.writeable = False
    return a


def random_program(seed: int) -> Program:
    r, rng = random.Random(seed), np.random.default_rng(seed)
    base = r.sample((1, 2, 3, 4, 5, 7, 8, 16, 17, 33, 64, 65), 3)
    if r.random() < 0.08:
        base[0] = 0
    dtypes = r.sample(sorted(DTYPES), 2) + ["f32", "f32", "f64", "i64"][r.randrange(4) :]
    flavour = "any" if r.random() < 0.15 else "small"
    arguments: dict[str, np.ndarray] = {}
    for k in range(r.randint(1, 3)):
        shape = tuple(r.choice(base) for _ in range(r.choice((0, 1, 2, 2, 2, 3))))
        arguments[f"x{k}"] = _strided(r, sample(rng, DTYPES[r.choice(dtypes)], shape, flavour))
    values: dict[str, Any] = dict(arguments)
    lines: list[tuple[str, str]] = []
    for _ in range(60):
        if len(lines) >= 2 + seed % 9:
            break
        templates, count = KINDS[r.choices(list(KINDS), (4, 4, 3, 3))[0]]
        names = list(values)[-r.randint(1, len(values)) :]
        picked = [r.choice(names) for _ in range(count)]
        dtype = r.choice(["bfloat16" if d == "bf16" else repr(str(DTYPES[d].numpy)) for d in dtypes])
        text = r.choice(templates).format(*picked, axis=r.choice((0, 0, 1, -1)), dtype=dtype)
        if count == 2 and np.size(values[picked[0]]) * np.size(values[picked[1]]) > 1 << 22:
            continue
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                value = eval(text, dict(NAMES), values)
                dtype_of(np.asarray(value).dtype)
                again = eval(text, dict(NAMES), {k: np.asarray(v) for k, v in values.items()})
        except Exception:  # NumPy does not do this with these values
            continue
        if np.asarray(again).dtype != np.asarray(value).dtype:  # np.True_ ** 2 is an int64, np.array(True) ** 2 an int8
            continue
        if "linalg" in text and any(values[p].dtype == ml_dtypes.bfloat16 for p in picked):  # no float for NumPy
            continue
        if not isinstance(value, (np.ndarray, np.generic)) or np.size(value) > LARGEST or np.ndim(value) > 5:
            continue
        name = f"y{len(lines)}"
        values[name] = value
        lines.append((name, text))
    made = [name for name, _ in lines] or list(arguments)
    return Program(arguments, lines, dict.fromkeys([made[-1], *r.sample(made, min(len(made), r.randint(0, 2)))]))


TOLERATED = ("is not supported", "XlcNotImplementedError")


def other_failure(program: Program, kind: str) -> str | None:
    """The program's gradient, or the program with a named size, against the interpreter; None also where it has none."""
    f, arguments = program.function(), list(program.arguments.values())
    g, options = f, {}
    if kind == "gradient":
        if not dtype_of(arguments[0].dtype).is_float:
            return None

        def g(*args: Any) -> Any:
            return xlc.value_and_grad(lambda x: sum(np.sum(v) for v in f(x, *args[1:])))(args[0])
    else:
        options = {"dynamic": {k: {0: f"n{a.shape[0]}"} for k, a in enumerate(arguments) if a.ndim and a.shape[0] > 1}}
    try:
        jitted = xlc.jit(g, **options)
        lowered = jitted.lower(*arguments)
    except xlc.XlcError:  # not differentiable; a size that has to be known
        return None
    plain = [np.ascontiguousarray(a).reshape(np.shape(a)) for a in arguments]
    try:
        expected = Expected(lowered.graph, plain)
    except ValueError:
        return None
    try:
        got = [np.asarray(v) for v in flatten(jitted(*arguments))[0]]
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        return None if any(t in text for t in TOLERATED) else f"compiling ({kind}): " + text
    problem = expected.check(got)
    return problem and f"comparing ({kind}) with the interpreter: {problem}"


def program_failure(program: Program, fuse: bool = True, kind: str = "") -> str | None:
    """What differs between NumPy's results and the compiled program's, or None."""
    if kind:
        return other_failure(program, kind)
    f = program.function()
    arguments = list(program.arguments.values())
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            want = [np.asarray(v) for v in f(*arguments)]
        except Exception:  # a line was taken away that others need
            return None
    try:
        jitted = xlc.jit(f, fuse=fuse)
        got = [np.asarray(v) for v in jitted(*arguments)]
        again = [np.asarray(v) for v in jitted(*arguments)]
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        return None if any(t in text for t in TOLERATED) else "compiling: " + text
    for k, (a, b) in enumerate(zip(got, again, strict=True)):
        if a.tobytes() != b.tobytes():
            return f"repeating: result {k} differs between two calls"
    lowered = jitted.lower(*arguments)
    expected = Expected(lowered.graph, [np.ascontiguousarray(a).reshape(np.shape(a)) for a in arguments])
    exact = dict(zip(lowered.graph.results, expected.results, strict=True))
    problem = expected.check(got)
    if problem:
        return "comparing with the interpreter: " + problem
    if any(_undefined(n, expected) for n in expected.values):
        return None
    for k, (g, w, node) in enumerate(zip(got, want, lowered.graph.results, strict=True)):
        if g.dtype != w.dtype or g.shape != w.shape:
            return f"NumPy: result {k} is {g.dtype}{list(g.shape)}, NumPy gives {w.dtype}{list(w.shape)}"
        if w.dtype.kind in "fV":  # NumPy's own rounding: sums in the narrow type, functions off by some ulps
            continue
        bad = wrong(g, w, [exact[node], *expected.others[k]])
        if bad.any() and not any(d.dtype.kind in "fV" for d in expected.values.values()):
            at = tuple(int(i[0]) for i in np.nonzero(bad)) if bad.ndim else ()
            return f"NumPy: result {k} at {list(at)} is {g[at]!r}, NumPy gives {w[at]!r}"
    return _floats(got, want, expected)


def _undefined(n: Node, expected: Expected) -> bool:
    """Whether a node does what NumPy leaves open: floats out of an integer's range, integers divided by 0, shifts by too much."""
    if n.op.name == "cast" and n.dtype.is_int and n.args[0].dtype.is_float:
        x, info = expected.values[n.args[0]].astype(np.float64), np.iinfo(n.dtype.numpy)
        return not bool(np.all((x > info.min - 1.0) & (x < info.max)))
    if n.dtype.is_int and n.op.name in ("floor_divide", "remainder"):
        return not bool(np.all(expected.values[n.args[1]]))
    if n.op.name in ("bitwise_left_shift", "bitwise_right_shift"):
        y = expected.values[n.args[1]]
        return not bool(np.all((y >= 0) & (y < n.dtype.bits)))
    return False


def _floats(got: Sequence[np.ndarray], want: Sequence[np.ndarray], expected: Expected) -> str | None:
    """Floats against NumPy, coarsely: most elements within a per mille of the largest (NumPy has its own rounding errors)."""
    for k, (g, w, others) in enumerate(zip(got, want, expected.others, strict=True)):
        if w.dtype.kind not in "fV" or not w.size:
            continue
        a, b = g.astype(np.float64), w.astype(np.float64)
        with np.errstate(all="ignore"):
            scale = np.max(np.abs(b[np.isfinite(b)]), initial=0.0)
            unsure = np.zeros(a.shape, bool)
            for o in others:
                unsure |= ~(np.abs(o.astype(np.float64) - a) <= 1e-6 * scale)
            loose = 0.1 if w.dtype.itemsize == 2 else 1e-3
            near = (a == b) | (np.isnan(a) & np.isnan(b)) | (np.abs(a - b) <= loose * (scale + 1e-30)) | unsure
        if np.mean(~near) > 0.01 and w.dtype.itemsize > 2:
            at = tuple(int(i[0]) for i in np.nonzero(~near)) if near.ndim else ()
            return f"NumPy: result {k} at {list(at)} is {g[at]!r}, NumPy gives {w[at]!r}"
    return None


def reduce_program(program: Program, message: str, **options: Any) -> tuple[Program, str]:
    """Fewer results, fewer lines."""
    how = message.split(":")[0]
    changed = True
    while changed:
        changed = False
        tries = [Program(program.arguments, program.lines, [n]) for n in program.results] if len(program.results) > 1 else []
        tries += [Program(program.arguments, program.lines[:k], [program.lines[k - 1][0]]) for k in range(1, len(program.lines))]
        tries += [
            Program(program.arguments, program.lines[:k] + program.lines[k + 1 :], program.results) for k in range(len(program.lines))
        ]
        for candidate in tries:
            try:
                found = program_failure(candidate, **options)
            except Exception:
                continue
            if found and found.split(":")[0] == how:
                program, message, changed = candidate, found, True
                break
    return program, message


def run_program_seed(seed: int) -> str | None:
    """The report of a failing seed, or None."""
    program = random_program(seed)
    options: dict[str, Any] = {"fuse": seed % 4 != 3, "kind": random.Random(seed).choice(("", "", "", "gradient", "symbolic"))}
    message = program_failure(program, **options)
    if message is None:
        return None
    program, message = reduce_program(program, message, **options)
    shown = "\n".join(
        f"  {k} = {a.dtype}{list(a.shape)} {np.array2string(a.astype(np.float64) if a.dtype.kind == 'V' else a, threshold=20)}"
        for k, a in program.arguments.items()
    )
    return f"seed {seed}: {message}\n{program.source}{shown}"
