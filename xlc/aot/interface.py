"""What an exported library looks like from outside: its name, its inputs and outputs, as data, as a C header, as JSON inside the library.

    interface("mlp", ...).header()    ->    int mlp(int64_t batch, const float *x, float *y, void *workspace);
    Interface.parse(text)             <-    the JSON that ``mlp_signature()`` returns
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..frontend.tree import LEAF, NONE, Tree
from ..ir.types import DTYPES, Size, Type, parse_size

VERSION = 1
MARK = "xlc library signature: "
"""What stands before the JSON in the read-only data of a library, so that ``load`` recognises one without running anything of it."""

C_TYPES = {"bool": "uint8_t", "i8": "int8_t", "i16": "int16_t", "i32": "int32_t", "i64": "int64_t", "u8": "uint8_t", "u16": "uint16_t",
           "u32": "uint32_t", "u64": "uint64_t", "f16": "uint16_t", "bf16": "uint16_t", "f32": "float", "f64": "double"}
_REMARKS = {"bool": "0 or 1", "f16": "the bits of an IEEE binary16", "bf16": "the upper 16 bits of a binary32"}
_RESERVED = frozenset(re.findall(r"\w+", """auto break case char const continue default do double else enum extern float for goto if
inline int long register
restrict return short
signed sizeof static struct switch typedef union unsigned void volatile while _Bool _Complex _Imaginary bool true false and or not xor
and_eq or_eq not_eq xor_eq bitand bitor compl asm catch class delete explicit export friend mutable namespace new operator private
protected public template this throw try typename using virtual alignas alignof constexpr nullptr noexcept static_assert thread_local
int8_t int16_t int32_t int64_t uint8_t uint16_t uint32_t uint64_t size_t NULL workspace par main xlc_parallel xlc_task"""))


@dataclass(frozen=True)
class Port:
    """One array that goes in or out. ``path`` is how a Python user would write it; ``shared`` names the input whose memory an output may
    use."""

    name: str
    dtype: str
    shape: tuple[str, ...]
    path: str
    shared: str = ""

    @property
    def type(self) -> Type:
        return Type(DTYPES[self.dtype], tuple(parse_size(s) for s in self.shape))


@dataclass(frozen=True)
class Interface:
    """``arguments`` are the names of the Python function's arguments that are nested in ``in_tree``; ``workspace`` is bytes, a size
    expression."""

    name: str
    sizes: tuple[str, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    arguments: tuple[str, ...]
    in_tree: Any
    out_tree: Any
    workspace: str
    target: str
    version: int = VERSION

    def json(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))

    @staticmethod
    def parse(text: str) -> Interface:
        d = json.loads(text)
        if d.get("version") != VERSION:
            raise ValueError(f"the library has signature version {d.get('version')}, this xlc reads version {VERSION}")

        def ports(items: Any) -> tuple[Port, ...]:
            return tuple(Port(p["name"], p["dtype"], tuple(p["shape"]), p["path"], p["shared"]) for p in items)

        return Interface(d["name"], tuple(d["sizes"]), ports(d["inputs"]), ports(d["outputs"]), tuple(d["arguments"]), d["in_tree"],
                         d["out_tree"], d["workspace"], d["target"], d["version"])

    # ------------------------------------------------------------------ as C

    def parameters(self) -> list[str]:
        """The parameters of the entry point but for the workspace, as C declarations."""
        written = {p.shared for p in self.outputs if p.shared}
        return [*(f"int64_t {s}" for s in self.sizes),
                *(f"{'' if p.name in written else 'const '}{C_TYPES[p.dtype]} *{p.name}" for p in self.inputs),
                *(f"{C_TYPES[p.dtype]} *{p.name}" for p in self.outputs)]

    def header(self) -> str:
        name, sizes = self.name, ", ".join(f"int64_t {s}" for s in self.sizes) or "void"
        listed = [*(f"   {p.name:12} in   {_describe(p)}" for p in self.inputs),
                  *(f"   {p.name:12} out  {_describe(p)}" for p in self.outputs)]
        table = "\n".join([*(f"   {s:12} size, at least 0" for s in self.sizes), *listed])
        every = ", ".join(self.parameters())
        separator = ", " if every else ""
        guard = f"XLC_{name.upper()}_H"
        return f"""\
/* {name}: made by xlc for {self.target}. Do not edit.

{table}

   Arrays are dense and row-major and need the alignment of their elements. Outputs do not overlap inputs or each other, unless stated
   above. `workspace` holds {name}_workspace_size({', '.join(self.sizes)}) bytes ({self.workspace}), aligned to 64; it may be NULL where
   that is 0, and its contents need not be kept. The functions return 0, or 1 for a size that does not fit, or 2 for a workspace that is
   not aligned. They allocate nothing, call nothing, keep no state: any number of threads may call them at once, each with its own
   workspace and outputs. */
#ifndef {guard}
#define {guard}

#include <stddef.h>
#include <stdint.h>

#ifndef XLC_PARALLEL
#define XLC_PARALLEL
typedef void (*xlc_task)(void *closure, int64_t lo, int64_t hi);
typedef struct xlc_parallel {{
  void *ctx;
  int64_t threads; /* how many threads run() may use, at least 1 */
  void (*run)(void *ctx, xlc_task task, void *closure, int64_t n);
  /* calls task(closure, lo, hi) over a partition of [0, n), in any order; returns when all is done */
}} xlc_parallel;
#endif

#ifdef __cplusplus
extern "C" {{
#endif

/* Runs on the caller's thread. */
int {name}({every}{separator}void *workspace);

/* The same result, bit for bit, on the threads that `par` gives (NULL: none). */
int {name}_parallel({every}{separator}void *workspace, const xlc_parallel *par);

size_t {name}_workspace_size({sizes});

/* This interface as JSON. */
const char *{name}_signature(void);

#ifdef __cplusplus
}}
#endif
#endif
"""


def _describe(p: Port) -> str:
    text = f"{p.dtype}[{', '.join(p.shape)}]" + (f"   {p.path}" if p.path not in ("", p.name) else "")
    remarks = [r for r in (_REMARKS.get(p.dtype, ""), f"may be the memory of {p.shared}" if p.shared else "") if r]
    return f"{text}   ({'; '.join(remarks)})" if remarks else text


def c_names(paths: Sequence[str], taken: set[str]) -> list[str]:
    """C identifiers for paths such as ``p['w']`` (p_w), none of them reserved or taken; ``taken`` grows."""
    out = []
    for path in paths:
        name = re.sub(r"\W+", "_", path, flags=re.ASCII).strip("_") or "x"
        name = f"x{name}" if name[0].isdigit() else name
        name = f"{name}_" if name in _RESERVED else name
        first, n = name, 1
        while name in taken:
            n += 1
            name = f"{first}_{n}"
        taken.add(name)
        out.append(name)
    return out


def port(name: str, type: Type, path: str, shared: str = "") -> Port:
    return Port(name, type.dtype.name, tuple(map(_size_text, type.shape)), path, shared)


def _size_text(s: Size) -> str:
    return str(s)


def tree_to_data(tree: Tree) -> Any:
    """A tree as JSON. Named tuples and dataclasses become named tuples with the same fields."""
    if tree.kind in ("leaf", "none"):
        return tree.kind
    children = [tree_to_data(c) for c in tree.children]
    if tree.kind in ("tuple", "list"):
        return {tree.kind: children}
    keys = [k if isinstance(k, (str, int)) else str(k) for k in tree.keys]
    return {"dict" if tree.kind == "dict" else "fields": children, "keys": keys, "name": getattr(tree.make, "__name__", "")}


def tree_from_data(data: Any) -> Tree:
    if data in ("leaf", "none"):
        return LEAF if data == "leaf" else NONE
    for kind in ("tuple", "list", "dict"):
        if kind in data:
            return Tree(kind, tuple(tree_from_data(c) for c in data[kind]), tuple(data.get("keys", ())))
    from collections import namedtuple

    return Tree("call", tuple(tree_from_data(c) for c in data["fields"]), tuple(data["keys"]),
                namedtuple(data["name"] or "Result", data["keys"], rename=True))  # noqa: PYI024  (its fields are known only here)
