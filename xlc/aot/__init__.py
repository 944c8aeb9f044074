"""Compiled functions as libraries that need no Python.

    xlc.aot.export(layer, [xlc.spec(("batch", 784)), w, b], "layer.so", name="layer")
        layer.so    layer, layer_parallel, layer_workspace_size, layer_signature; nothing else is exported; w and b are inside
        layer.h     int layer(int64_t batch, const float *x, float *y, void *workspace); ...
    xlc.aot.load("layer.so")(x)      the same library, called from Python

The code is that of ``xlc.jit``: results are equal bit for bit.
"""

from .export import export
from .library import Library, load

__all__ = ["Library", "export", "load"]
