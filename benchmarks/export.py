"""The exported MLP: what the library adds to its weights, on disk and in memory, seen from a C program that loads it."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator

from .harness import US, Missing, Row, Scale, amount, reason_of
from .workloads import BATCH, mlp_forward, mlp_parameters

PROGRAM = r"""
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Resident bytes: smaps_rollup counts page by page, where statm may lag behind by a batch of pages per processor. */
static long resident(void) {
  static char line[256];
  long kib = -1;
  FILE *f = fopen("/proc/self/smaps_rollup", "r");
  if (!f) return -1;
  while (fgets(line, sizeof line, f)) if (sscanf(line, "Rss: %ld kB", &kib) == 1) break;
  fclose(f);
  return kib * 1024;
}

int main(int argc, char **argv) {
  if (argc != 4) return 2;
  size_t inputs = (size_t)atol(argv[2]), outputs = (size_t)atol(argv[3]);
  float *x = malloc(4 * inputs), *y = malloc(4 * outputs);
  memset(x, 0, 4 * inputs);
  memset(y, 0, 4 * outputs);
  resident();
  long before = resident();
  void *library = dlopen(argv[1], RTLD_NOW);
  if (!library) { fprintf(stderr, "%s\n", dlerror()); return 1; }
  size_t (*size)(void) = (size_t (*)(void))dlsym(library, "mlp_workspace_size");
  int (*mlp)(const float *, float *, void *) = (int (*)(const float *, float *, void *))dlsym(library, "mlp");
  size_t workspace = size();
  void *space = aligned_alloc(64, (workspace + 63) / 64 * 64 + 64);
  memset(space, 0, workspace);
  int code = mlp(x, y, space);
  printf("%d %ld %zu\n", code, resident() - before, workspace);
  return code;
}
"""


def rows(scale: Scale) -> Iterator[Row]:
    row = Row("exported MLP 784-500-10")
    bars = ("library without weights under 64 KB", "resident memory beyond weights and workspace under 256 KB")
    try:
        size, resident, weights, workspace = measure()
    except Missing as reason:
        row.absent["C"] = str(reason)
        for bar in bars:
            row.judge(bar, f"needs {reason}", None)
    except Exception as error:  # named in the table, as for a contestant that breaks
        row.absent[US] = reason_of(error)
        for bar in bars:
            row.judge(bar, f"no {US}", False)
    else:
        row.notes.append(f"library {amount(size)}, weights {amount(weights)}, workspace {amount(workspace)}, resident {amount(resident)}")
        row.judge(bars[0], amount(size - weights), size - weights < 64 << 10)
        beyond = resident - weights - workspace
        row.judge(bars[1], amount(beyond) if beyond > 0 else "0 B", beyond < 256 << 10)
    yield row


def measure() -> tuple[int, int, int, int]:
    """Bytes of the library, bytes resident for it after a call, bytes of its weights and of its workspace."""
    import xlc

    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise Missing("a C compiler")
    with tempfile.TemporaryDirectory(prefix="xlc-bench-") as name:
        folder = pathlib.Path(name)
        p = mlp_parameters()
        xlc.aot.export(lambda x: mlp_forward(p, x), [xlc.spec((BATCH, 784), "f4")], str(folder / "mlp.so"), name="mlp")
        (folder / "main.c").write_text(PROGRAM)
        subprocess.run([compiler, "-O1", "-o", folder / "main", folder / "main.c", "-ldl"], check=True, capture_output=True)
        command: list[str | pathlib.Path] = [folder / "main", folder / "mlp.so", str(BATCH * 784), str(BATCH * 10)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        code, resident, workspace = map(int, done.stdout.split())
        if code:
            raise RuntimeError(f"mlp returned {code}")
        return (folder / "mlp.so").stat().st_size, resident, sum(a.nbytes for a in p.values()), workspace
