"""Builds the extension xlc._xlc from csrc/ (C++17) and runtime/ (C11).

Where that fails, the package installs without it and calls compiled code from Python.
"""

import glob
import os
import shutil
import sys

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

RUNTIME = sorted(glob.glob("runtime/*.[ch]"))
WARNINGS = ["-Wall", "-Wextra", "-Wno-missing-field-initializers", "-Wno-cast-function-type"]
COMMON = ["-O2", "-fvisibility=hidden", "-pthread", *WARNINGS]


class BuildExt(build_ext):
    """C and C++ in one extension, which setuptools cannot do by itself: each language has its own flags."""

    def run(self) -> None:
        try:
            super().run()
        except Exception as error:  # a missing compiler shows in many ways; none of them may stop the installation
            self.without(error)

    def build_extension(self, ext: Extension) -> None:
        try:
            import numpy
            import pybind11

            ext.include_dirs = ["csrc", "runtime", numpy.get_include(), pybind11.get_include()]
            objects = self.compiler.compile([s for s in RUNTIME if s.endswith(".c")], output_dir=self.build_temp,
                                            include_dirs=["runtime"], extra_postargs=["-std=c11", "-fPIC", *COMMON])
            ext.extra_objects = objects
            super().build_extension(ext)
        except Exception as error:
            self.without(error)

    def copy_extensions_to_source(self) -> None:
        self.extensions = [e for e in self.extensions if os.path.exists(self.get_ext_fullpath(e.name)) or
                           os.path.exists(os.path.join(self.build_lib, self.get_ext_filename(e.name)))]
        super().copy_extensions_to_source()

    def without(self, error: Exception) -> None:
        why = (str(error).splitlines() or ["no message"])[0][:100]
        print(f"xlc: the C++ extension was not built ({type(error).__name__}: {why}); installing without it: "
              "calls go through the slower Python path", file=sys.stderr)


class BuildPy(build_py):
    """The runtime's sources travel in the package: exported libraries and their headers refer to them."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            target = os.path.join(self.build_lib, "xlc", "runtime")
            os.makedirs(target, exist_ok=True)
            for source in RUNTIME:
                shutil.copy(source, target)


setup(
    ext_modules=[Extension("xlc._xlc", sorted(glob.glob("csrc/*.cpp")), language="c++", depends=[*glob.glob("csrc/*.h"), *RUNTIME],
                           extra_compile_args=["-std=c++17", *COMMON], extra_link_args=["-pthread"], optional=True)],
    cmdclass={"build_ext": BuildExt, "build_py": BuildPy},
)
