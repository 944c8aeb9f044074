"""``xlc.jit``: a Python function over arrays becomes one compiled program per kind of arguments.

    f = xlc.jit(lambda x, w: np.tanh(x @ w))
    f(x, w)               traces, compiles and runs; the next call with the same dtypes and shapes only runs
    f.lower(x, w).graph   what was traced
    f.compile(x, w)       the compiled program: .graph, .after(pass), .kernels, .plan, .asm, .explain()

What enters is a call; its arguments are flattened (``tree``), each leaf becomes a parameter of the graph, the function runs once on
tracers, and what it returns becomes the results. Arrays of the closure and globals become constants, by their value at that moment. Python
scalars that are passed are parameters too (weakly typed); defaults that are not passed stay what they are.
"""

from __future__ import annotations

import inspect
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import update_wrapper
from typing import Any

import numpy as np

from .. import config
from ..errors import XlcError, XlcOverflowError, XlcRecursionError, XlcTypeError, XlcValueError
from ..ir.node import Graph, Node, parameter
from ..ir.types import Dim, DType, Size, Type, bool_, dtype_of, f64, i64, parse_size
from ..run.native import RETRY, Dispatcher
from .array import Storage, Tracer, lift
from .devices import OnDevice, call_key, common_device, device_of, to_host
from .dispatch import leaf_order, result_tree
from .reports import Report, nodes_of, owned, tell
from .trace import as_array, check_dtype, current, describe, mark, refuse, tracing
from .tree import Tree, flatten, paths, unflatten

_WEAK = {bool: bool_, int: i64, float: f64}


class Spec:
    """The type of an argument, in place of an array: ``xlc.spec(("batch", 784), "f4")``. Names are symbolic sizes."""

    def __init__(self, shape: tuple[Size, ...], dtype: DType):
        self.type = Type(dtype, shape)

    def __repr__(self) -> str:
        return f"spec({self.type})"


def spec(shape: int | str | Sequence[int | str | Dim], dtype: Any = "f4") -> Spec:
    """A stand-in for an array: sizes are ints, or names or expressions of names ("batch", "2*n"); dtype is anything NumPy takes, or
    "bfloat16"."""
    sizes = (shape,) if isinstance(shape, (int, str, Dim)) else tuple(shape)
    try:
        parsed = tuple(parse_size(s) if isinstance(s, str) else s if isinstance(s, Dim) else int(s) for s in sizes)
        found = dtype_of(dtype)
    except (ValueError, SyntaxError) as error:
        raise XlcValueError(f"spec({shape!r}): {error}") from None
    except TypeError as error:
        raise XlcTypeError(f"spec({shape!r}, {dtype!r}): {error}") from None
    if any(isinstance(s, int) and s < 0 for s in parsed):
        raise XlcValueError(f"spec({shape!r}): a size must not be negative")
    return Spec(parsed, found)


@dataclass(frozen=True)
class Signature:
    """One kind of call: what is compiled once. ``leaves`` holds (type, weak) per array leaf; ``static`` the values of static arguments."""

    tree: Tree
    leaves: tuple[tuple[Type, bool], ...]
    static: tuple[tuple[str, Any], ...]
    config: tuple[Any, ...]
    device: str | None = None


@dataclass(frozen=True, eq=False)
class Lowered:
    """A traced function. ``names`` are the parameters' names, ``paths`` how a user would write each (``p['w']``); ``out_tree`` rebuilds the
    result from the graph's results; ``assumptions`` are sizes that must not be negative. The results of the graph that come after those of
    the function are the values of ``reports``. Arrays of the closure that were ``taken`` (see ``trace``) fill the last parameters."""

    graph: Graph
    names: tuple[str, ...]
    paths: tuple[str, ...]
    in_tree: Tree
    out_tree: Tree
    weak: tuple[bool, ...]
    assumptions: tuple[Dim, ...]
    donate: tuple[int, ...]
    owner: Jitted
    reports: tuple[Report, ...] = ()
    device: str | None = None
    taken: tuple[np.ndarray, ...] = ()

    def compile(self) -> Compiled:
        from ..pipeline import compile_graph  # networkx and llvmlite are imported at the first compilation

        program = compile_graph(self.graph, fuse=self.owner.fuse, device=self.device, donate=self.donate)
        self.owner._count()
        return Compiled(self, program)

    def without_reports(self) -> Lowered:
        """The results of the function alone."""
        graph = self.graph
        return replace(self, graph=Graph(graph.params, graph.results[:self.out_tree.size], graph.name), reports=())

    def __str__(self) -> str:
        return str(self.graph)

    __repr__ = __str__


class Compiled:
    """A compiled program together with the nesting of its arguments and results. Attributes not listed here are those of the program:
    ``graph``, ``after(pass_name)``, ``kernels``, ``plan``, ``asm``, ``explain()``."""

    def __init__(self, lowered: Lowered, program: Any):
        self.lowered, self.program = lowered, program
        self._native: dict[tuple[int, ...], Any] = {}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.program, name)

    def __str__(self) -> str:
        return str(self.program)

    def __repr__(self) -> str:
        return f"<{self.lowered.graph.name} compiled for ({', '.join(str(p.type) for p in self.lowered.graph.params)})>"

    @property
    def on_host(self) -> bool:
        """Whether the call path may know the program: it sees arrays of NumPy alone."""
        return self.lowered.device in (None, "cpu")

    def run(self, arrays: Sequence[np.ndarray]) -> Any:
        """Flat arrays in, the function's own kind of result out."""
        lowered = self.lowered
        if not lowered.graph.results:
            return unflatten(lowered.out_tree, [])
        if lowered.reports:
            again = any(r.check for r in lowered.reports)  # a check that fails runs the graph once more; what is donated is lost by then
            kept = [a.copy() if again and i in lowered.donate else a for i, a in enumerate(arrays)]
            found = self.program.run(arrays)
            count = lowered.out_tree.size
            tell(lowered.graph, lowered.reports, kept, [to_host(v) for v in found[count:]])
            return unflatten(lowered.out_tree, found[:count])
        return self.native(tuple(range(len(arrays)))).call_flat(arrays)

    def native(self, order: tuple[int, ...]) -> Any:
        """The program for the call path; ``order[i]`` is the parameter that leaf i of a call fills."""
        found = self._native.get(order)
        if found is None:
            found = self._native[order] = self.program.native(order, result_tree(self.lowered.out_tree))
        return found

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        owner = self.lowered.owner
        call = owner._call(args, kwargs)
        if call.tree != self.lowered.in_tree:
            raise XlcTypeError(f"{owner.__name__} was compiled for arguments nested as {self.lowered.in_tree}, found {call.tree}")
        found = [owner._array(leaf, path) for leaf, path in zip(call.leaves, call.paths, strict=True)]
        common_device(self.lowered.device or "cpu", call.leaves, call.paths, owner.__name__)
        sizes: dict[str, tuple[int, str]] = {}
        for (array, _), path, p in zip(found, call.paths, self.lowered.graph.params, strict=True):
            if dtype_of(array.dtype) != p.dtype or not _matches(p.type.shape, array.shape, path, sizes):
                raise XlcTypeError(f"{owner.__name__} was compiled for {path}: {p.type}, found {array.dtype}{list(array.shape)}")
        return self.run(_given(call, found, self.lowered.device))


def _given(call: _Call, found: Sequence[tuple[np.ndarray, bool]], device: str | None) -> list[Any]:
    """What a program for that device takes: arrays of NumPy; on a device what was passed, but for Python numbers."""
    here = device in (None, "cpu")
    return [array if here or weak else leaf for leaf, (array, weak) in zip(call.leaves, found, strict=True)]


def _matches(shape: tuple[Size, ...], found: tuple[int, ...], path: str, sizes: dict[str, tuple[int, str]]) -> bool:
    """Do the sizes fit the type? Sizes of one name must agree over all arguments."""
    if len(shape) != len(found):
        return False
    for axis, (s, n) in enumerate(zip(shape, found, strict=True)):
        if isinstance(s, int):
            if s != n:
                return False
            continue
        if len(s.names) == 1 and str(s) in s.names:
            value, where = sizes.setdefault(str(s), (n, f"{path} (axis {axis})"))
            if value != n:
                raise XlcValueError(f"the size {s!s} is {value} in {where} and {n} in {path} (axis {axis}); sizes of one name must be "
                                    f"equal")
        elif all(name in sizes for name in s.names) and s.evaluate({k: v for k, (v, _) in sizes.items()}) != n:
            return False
    return True


@dataclass
class _Call:
    """The arguments of one call, normalised: names to values, the static ones apart, the others flattened."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    static: tuple[tuple[str, Any], ...]
    leaves: list[Any]
    tree: Tree
    paths: list[str]


class Jitted:
    """A function with its compiled programs. What ``xlc.jit`` returns is its ``dispatcher``, which looks up here what it does not have
    itself."""

    __name__: str
    __wrapped__: Callable[..., Any]

    def __init__(self, f: Callable[..., Any], static_argnames: Any = (), donate: Any = (), dynamic: Any = None, fuse: bool = True,
                 device: str | None = None):
        if not callable(f):
            raise XlcTypeError(f"jit expects a function, found {describe(f)}")
        update_wrapper(self, f)  # type: ignore[arg-type]
        self.__name__ = getattr(f, "__name__", type(f).__name__)
        self.f, self.fuse, self.device = f, fuse, device
        try:
            self.signature: inspect.Signature | None = inspect.signature(f)
        except (ValueError, TypeError):
            self.signature = None  # some built-in functions have none: positional arguments only
        self.static = self._argument_names(static_argnames, "static_argnames")
        self.donate = self._argument_names(donate, "donate")
        self.dynamic = self._dynamic(dynamic or {})
        names = list(self.signature.parameters) if self.signature else []
        self.static_places = frozenset(i for i, n in enumerate(names) if n in self.static), self.static
        self.method = names[:1] == ["self"]
        self.compiles = 0
        self.dispatcher = Dispatcher(self.miss, static_argnums=sorted(self.static_places[0]), static_argnames=sorted(self.static),
                                     owner=self)
        self._entries: dict[Signature, Compiled] = {}
        self._on_device: dict[Any, Any] = {}  # calls on a device, which the dispatcher does not see: see devices.call_key
        self._lock = threading.Lock()
        self._compiling: dict[Signature, Any] = {}

    # ------------------------------------------------------------------ options

    def _argument_names(self, given: Any, option: str) -> frozenset[str]:
        items = [given] if isinstance(given, (str, int)) else list(given)
        names = list(self.signature.parameters) if self.signature else []
        out = set()
        for item in items:
            if isinstance(item, int) and -len(names) <= item < len(names):
                out.add(names[item])
            elif isinstance(item, str) and (item in names or self.signature is None or self._takes_any_keyword()):
                out.add(item)
            else:
                raise XlcValueError(f"{option}={given!r}: {self.__name__} has no argument {item!r}; it has {', '.join(names)}")
        return frozenset(out)

    def _takes_any_keyword(self) -> bool:
        return self.signature is not None and any(p.kind is p.VAR_KEYWORD for p in self.signature.parameters.values())

    def _dynamic(self, given: Mapping[Any, Any]) -> dict[str, dict[int, Size]]:
        if not isinstance(given, Mapping):
            raise XlcTypeError(f"dynamic= expects {{argument: {{axis: name}}}}, found {describe(given)}")
        out: dict[str, dict[int, Size]] = {}
        for argument, axes in given.items():
            root = argument.split("[")[0].split(".")[0] if isinstance(argument, str) else argument
            (name,) = self._argument_names(root, "dynamic")
            if not isinstance(axes, Mapping) or not all(isinstance(a, int) for a in axes):
                raise XlcTypeError(f"dynamic={{{argument!r}: {axes!r}}}: expected {{axis: name}} such as {{0: 'batch'}}")
            path = argument if isinstance(argument, str) else name
            try:
                out[path] = {a: s if isinstance(s, Dim) else Dim.named(s) for a, s in axes.items()}
            except (ValueError, AttributeError) as error:
                raise XlcValueError(f"dynamic={{{argument!r}: {axes!r}}}: {error}") from None
        return out

    # ------------------------------------------------------------------ the call

    def miss(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call that the call path does not know: the first of its kind, one with arguments that need Python, or one inside a trace."""
        if current() is not None:
            return self.f(*args, **kwargs)  # inside another trace: one program
        if self._on_device and not kwargs:
            leaves, key = call_key(args)
            if (program := self._on_device.get(key)) is not None:
                return program.call_flat(leaves)
        if self.method and args and flatten(args[0])[1].kind == "leaf" and not isinstance(args[0], (np.ndarray, np.generic)):
            return _bound(self, args[0])(*args[1:], **kwargs)
        call = self._call(args, kwargs)
        found = [self._array(leaf, path) for leaf, path in zip(call.leaves, call.paths, strict=True)]
        device = common_device(self.device, call.leaves, call.paths, self.__name__)
        here, arrays = device in (None, "cpu"), _given(call, found, device)
        signature = Signature(call.tree, self._types(found, call.paths), call.static, config.key(), device)
        compiled = self._entries.get(signature) or self._compiled(signature, call)
        if compiled.lowered.assumptions:
            if not _hold(compiled.lowered, arrays):
                fixed = tuple((Type(dtype_of(a.dtype), a.shape), w) for a, w in found)
                signature = replace(signature, leaves=fixed)
                compiled = self._entries.get(signature) or self._compiled(signature, call)
        elif compiled.lowered.graph.results and not compiled.lowered.reports and here:
            order = leaf_order(args, kwargs, self.static_places, lambda a, k: self._call(a, k).leaves)
            if self.dispatcher.add(args, kwargs, compiled.native(tuple(order))) is not None:
                return RETRY
        elif not (here or kwargs or self.static or compiled.lowered.reports or self.method) and compiled.lowered.graph.results:
            leaves, key = call_key(args)
            if key is not None:
                self._on_device[key] = compiled.native(tuple(range(len(leaves))))
        return compiled.run(arrays)

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Call:
        if self.signature is None:
            named = {f"x{i}": a for i, a in enumerate(args)} | kwargs
            positional, keyword = args, kwargs
        else:
            try:
                bound = self.signature.bind(*args, **kwargs)
            except TypeError as error:
                raise XlcTypeError(f"{self.__name__}(): {error}; it takes {self.signature}") from None
            named, positional, keyword = dict(bound.arguments), bound.args, bound.kwargs
        static = []
        for name in sorted(self.static & named.keys() | (self.static & keyword.keys())):
            value = named.get(name, keyword.get(name))
            try:
                hash(value)
            except TypeError:
                hint = "a list as a tuple" if isinstance(value, list) else "arrays are passed as ordinary arguments" if hasattr(value,
                        "dtype") \
                    else "an immutable value"
                raise XlcTypeError(f"{self.__name__}(): the static argument {name!r} must be hashable, found {describe(value)}; pass "
                                   f"{hint}") from None
            static.append((name, _typed(value)))
        names = self._leaf_roots(positional)
        holes = {n: v for n, v in zip(names, positional, strict=True) if n.split("[")[0] not in self.static}
        rest = {n: v for n, v in keyword.items() if n not in self.static}
        leaves, tree = flatten((tuple(holes.values()), rest))
        found = [p for n, child in zip(holes, tree.children[0].children, strict=True) for p in paths(child, n)]
        found += [p for n, child in zip(tree.children[1].keys, tree.children[1].children, strict=True) for p in paths(child, n)]
        return _Call(positional, keyword, tuple(static), leaves, tree, found)

    def _leaf_roots(self, positional: tuple[Any, ...]) -> list[str]:
        if self.signature is None:
            return [f"x{i}" for i in range(len(positional))]
        out: list[str] = []
        for p in self.signature.parameters.values():
            if p.kind is p.VAR_POSITIONAL:
                out += [f"{p.name}[{i}]" for i in range(len(positional) - len(out))]
            elif len(out) < len(positional) and p.kind is not p.KEYWORD_ONLY:
                out.append(p.name)
        return out

    def _array(self, leaf: Any, path: str) -> tuple[np.ndarray, bool]:
        """A leaf as an array, and whether it is a Python scalar."""
        kind = type(leaf)
        if kind is np.ndarray:
            return as_array(leaf, f"{self.__name__}(): the argument {path}"), False
        if kind in _WEAK:
            try:
                return np.array(leaf, _WEAK[kind].numpy), True
            except OverflowError:
                raise XlcOverflowError(f"{self.__name__}(): the argument {path} = {leaf} does not fit int64; pass np.uint64({leaf}) or a "
                                       f"float") from None
        if kind is Tracer:
            raise refuse(leaf._trace, leaf._node.loc)
        if kind is Spec:
            raise XlcTypeError(f"{self.__name__}(): the argument {path} is a spec; specs are for lower() and compile(), a call needs an "
                               f"array")
        if device_of(leaf) is not None:
            there = OnDevice(leaf)
            check_dtype(there.dtype, f"{self.__name__}(): the argument {path}")
            return there, False  # type: ignore[return-value]
        return as_array(leaf, f"{self.__name__}(): the argument {path}"), False

    def _types(self, found: Iterable[tuple[np.ndarray, bool]], where: Iterable[str]) -> tuple[tuple[Type, bool], ...]:
        """Types of the leaves, with the names that dynamic= gives to sizes."""
        if not self.dynamic:
            return tuple([(Type(dtype_of(a.dtype), a.shape), weak) for a, weak in found])
        out, sizes = [], {}  # type: ignore[var-annotated]
        for (array, weak), path in zip(found, where, strict=True):
            shape = list(array.shape)
            for axis, name in (self.dynamic.get(path) or self.dynamic.get(path.split("[")[0].split(".")[0]) or {}).items():
                if not -len(shape) <= axis < len(shape):
                    raise XlcValueError(f"dynamic= names axis {axis} of {path}, which has shape {array.shape}")
                shape[axis] = name
            named = Type(dtype_of(array.dtype), tuple(shape))
            _matches(named.shape, array.shape, path, sizes)
            out.append((named, weak))
        return tuple(out)

    # ------------------------------------------------------------------ tracing and compiling

    def lower(self, *args: Any, **kwargs: Any) -> Lowered:
        """Trace for arguments of this kind (arrays, Python scalars, specs), without compiling."""
        call, signature = self._signature_of(args, kwargs)
        return self._trace(signature, call)

    def opened(self, args: tuple[Any, ...]) -> tuple[Lowered, list[np.ndarray]]:
        """The function traced for these arguments, where arrays of its closure are parameters too, and the arrays for all parameters."""
        call, signature = self._signature_of(args, {})
        lowered = self._trace(signature, call, open=True)
        found = [self._array(leaf, path) for leaf, path in zip(call.leaves, call.paths, strict=True)]
        return lowered, [*_given(call, found, signature.device), *lowered.taken]

    def compile(self, *args: Any, **kwargs: Any) -> Compiled:
        """The compiled program for arguments of this kind."""
        call, signature = self._signature_of(args, kwargs)
        return self._entries.get(signature) or self._compiled(signature, call)

    def _signature_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[_Call, Signature]:
        call = self._call(args, kwargs)
        leaves: list[tuple[Type, bool]] = []
        for leaf, path in zip(call.leaves, call.paths, strict=True):
            leaves += [(leaf.type, False)] if type(leaf) is Spec else self._types([self._array(leaf, path)], [path])
        device = common_device(self.device, call.leaves, call.paths, self.__name__)
        return call, Signature(call.tree, tuple(leaves), call.static, config.key(), device)

    def _compiled(self, signature: Signature, call: _Call) -> Compiled:
        """Compile once per signature, whatever the number of threads that ask."""
        with self._lock:
            lock = self._compiling.setdefault(signature, threading.RLock())
        with lock:
            compiled = self._entries.get(signature)
            if compiled is None:
                compiled = self._entries[signature] = self._trace(signature, call).compile()
        with self._lock:
            self._compiling.pop(signature, None)
        return compiled

    def _count(self) -> None:
        with self._lock:
            self.compiles += 1

    def _trace(self, signature: Signature, call: _Call, open: bool = False) -> Lowered:
        names = _identifiers(call.paths)
        params = [parameter(t, name, i) for i, (name, (t, _)) in enumerate(zip(names, signature.leaves, strict=True))]
        with tracing(self.__name__, open=open) as trace:
            tracers = [Tracer(p, weak, None if weak else Storage(f"the argument {path}"))
                       for p, path, (_, weak) in zip(params, call.paths, signature.leaves, strict=True)]
            args, kwargs = self._with_tracers(call, tracers)
            try:
                out = self.f(*args, **kwargs)
            except RecursionError as error:
                raise XlcRecursionError(f"{self.__name__} calls itself (or nests calls) deeper than Python's recursion limit while it is "
                                        f"traced; a "
                                        "condition on traced values cannot end a recursion: let it depend on a static argument") from error
            except ValueError as error:
                if isinstance(error.__cause__, XlcError):
                    raise error.__cause__ from None  # NumPy's "setting an array element with a sequence" hides the cause
                raise
            mark()
            results, out_tree = self._results(out)
            if config.get("check_nans"):
                from .nans import check

                check([(n, f"{path} of {self.__name__}") for n, path in zip(results, paths(out_tree, "the result"), strict=True)])
            params += trace.taken
            reports = tuple(owned(trace.reports, params))
            assumptions = tuple(sorted(trace.assumptions, key=str))
        donate = tuple(i for i, path in enumerate(call.paths) if path.split("[")[0].split(".")[0] in self.donate)
        graph = Graph(tuple(params), (*results, *nodes_of(reports)), names_of(self.__name__))
        return Lowered(graph, tuple(names), tuple(call.paths), call.tree, out_tree, tuple(w for _, w in signature.leaves), assumptions,
                       donate, self, reports, signature.device, tuple(trace.taken.values()))

    def _results(self, out: Any) -> tuple[tuple[Node, ...], Tree]:
        """The nodes of what the function returned; errors are about the function, which has returned by now."""
        code = getattr(self.f, "__code__", None)
        try:
            leaves, tree = flatten(out)
            return tuple(_result(leaf, path, self.__name__) for leaf, path in zip(leaves, paths(tree, "the result"), strict=True)), tree
        except XlcError as error:
            if code is None:
                raise
            raise type(error)(error.message, (code.co_filename, code.co_firstlineno)) from None

    def _with_tracers(self, call: _Call, tracers: list[Tracer]) -> tuple[list[Any], dict[str, Any]]:
        """The call's arguments with tracers in place of arrays, the static ones as they are."""
        values, keyword = unflatten(call.tree, tracers)
        traced = iter(values)
        args = [v if n.split("[")[0] in self.static else next(traced)
                for n, v in zip(self._leaf_roots(call.args), call.args, strict=True)]
        return args, {n: call.kwargs[n] if n in self.static else keyword[n] for n in call.kwargs}

    def __repr__(self) -> str:
        return f"<xlc.jit of {self.__name__}, compiled {self.compiles} times>"


def _result(leaf: Any, path: str, name: str) -> Any:
    if type(leaf) is Tracer or isinstance(leaf, (np.ndarray, np.generic, Dim)) or type(leaf) in _WEAK:
        return lift(leaf).node
    if isinstance(leaf, (str, bytes)) or callable(leaf) or not (hasattr(leaf, "__array__") or hasattr(leaf, "__dlpack__")):
        raise XlcTypeError(f"{path} of {name} is {describe(leaf)}; a compiled function returns arrays, numbers, None, and nested "
                           f"containers of these")
    return lift(leaf).node


def _hold(lowered: Lowered, arrays: Sequence[np.ndarray]) -> bool:
    env = {str(s): n for p, a in zip(lowered.graph.params, arrays, strict=True) for s,
           n in zip(p.shape, a.shape, strict=True) if isinstance(s, Dim)}
    return all(size.evaluate(env) >= 0 for size in lowered.assumptions)


def names_of(text: str) -> str:
    """An identifier like the text: ``p['w']`` -> ``p_w``, ``<lambda>`` -> ``lambda_``."""
    name = "_".join(part for part in "".join(c if c.isalnum() or c == "_" else " " for c in text).split())
    name = name if name and not name[0].isdigit() else f"x{name}"
    return name + "_" if name == "lambda" else name


def _identifiers(where: Sequence[str]) -> list[str]:
    out: list[str] = []
    for path in where:
        name, n = names_of(path), 1
        while name in out:
            n += 1
            name = f"{names_of(path)}_{n}"
        out.append(name)
    return out


def _typed(value: Any) -> Any:
    """A static value as part of a key: 1, 1.0 and True are different ones."""
    return (type(value), tuple(map(_typed, value)) if isinstance(value, tuple) else value)


_methods: weakref.WeakKeyDictionary[Any, dict[int, Any]] = weakref.WeakKeyDictionary()


def _bound(jitted: Jitted, instance: Any) -> Any:
    """The jitted method of one instance, made once and kept with it."""
    try:
        kept = instance.__dict__.setdefault("__xlc_methods__", {})
    except AttributeError:
        kept = _methods.setdefault(instance, {})
    found = kept.get(id(jitted))
    if found is None:
        first, *_ = list(jitted.signature.parameters) if jitted.signature else [""]
        found = kept[id(jitted)] = jit(jitted.f.__get__(instance), static_argnames=tuple(jitted.static - {first}),
                                       donate=tuple(jitted.donate - {first}),
                                       dynamic=jitted.dynamic, fuse=jitted.fuse, device=jitted.device)
    return found


def jit(f: Callable[..., Any] | None = None, *, static_argnames: Any = (), donate: Any = (), dynamic: Any = None, fuse: bool = True,
        device: str | None = None) -> Any:
    """Compile ``f``: one native program per kind of arguments, made at the first call of that kind.

    static_argnames  arguments that are settings, not arrays: Python values, hashable; each value is compiled on its own
    donate           arguments whose memory the results may reuse; the caller must not use them afterwards (names or positions)
    dynamic          {"x": {0: "batch"}}: this axis is a symbolic size; one program serves every size of it
    fuse             False keeps every operator a kernel of its own, for comparison
    device           None: where the arguments live; or "cpu", "cuda", "cuda:1" (to which NumPy arrays are copied, results are CuPy arrays),
                     "cuda:sm_90" (code for a chip that is not here, to look at)

    Raises XlcError subclasses that name the user's line. Arrays of the closure are constants, captured when the function is traced.
    """
    if f is None:
        return lambda g: Jitted(g, static_argnames, donate, dynamic, fuse, device).dispatcher
    return Jitted(f, static_argnames, donate, dynamic, fuse, device).dispatcher
