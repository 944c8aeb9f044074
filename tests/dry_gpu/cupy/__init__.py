"""``import cupy`` gives the stand-in of ``fake_cupy``, whose kernels run on the shim: to try what runs on a GPU where there is none.

    XLC_CUDA_DEVICE=gpu PYTHONPATH=tests/dry_gpu:tests:. python -m pytest tests/test_cuda_map.py
    PYTHONPATH=tests/dry_gpu:tests:. python -m xlc gpu-check --smoke
"""

import fake_cupy

fake_cupy.kept = fake_cupy.standing_in(fake_cupy.RunningCupy())  # type: ignore[attr-defined]  # this module is not kept, and its place is taken
fake_cupy.kept.__enter__()  # type: ignore[attr-defined]
