# make demo | test | bench | gpu | lint | accuracy | examples. Each makes its virtual environment when it is needed.
PYTHON ?= python3
VENV ?= .venv
PY = $(VENV)/bin/python
SOURCES = pyproject.toml setup.py $(wildcard csrc/*) $(wildcard runtime/*)
.PHONY: demo test bench gpu lint accuracy examples clean

demo: $(VENV)/.installed
	$(PY) examples/demo.py

test: $(VENV)/.installed
	$(PY) -m pytest -q -n $${XLC_TEST_PROCESSES:-2} tests

bench: $(VENV)/.benched
	$(PY) -m benchmarks

# On a machine with a GPU; what else is installed in the environment (PyTorch, JAX, Triton) is measured beside.
gpu: $(VENV)/.gpu
	$(PY) -m xlc gpu-check

lint: $(VENV)/.installed
	$(PY) -m ruff check .; ruff=$$?; $(PY) -m mypy && exit $$ruff

# Every program that trains, at its full length; each says what it must reach, and stops the run if it does not.
examples: $(VENV)/.installed
	set -e; for program in examples/*.py; do echo "== $$program"; $(PY) $$program; done

accuracy: $(VENV)/.installed
	$(PY) -m benchmarks.accuracy --all

# Editable, so that Python sources need no reinstallation; the sources of the extension do.
$(VENV)/.installed: $(SOURCES)
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check --upgrade pip setuptools wheel
	$(PY) -m pip install --quiet --disable-pip-version-check --editable ".[test]"
	touch $@

$(VENV)/.gpu: $(VENV)/.installed
	$(PY) -m pip install --quiet --disable-pip-version-check --editable ".[test,cuda]"
	touch $@

$(VENV)/.benched: $(VENV)/.installed
	$(PY) -m pip install --quiet --disable-pip-version-check --editable ".[bench]"
	touch $@

clean:
	rm -rf $(VENV) build out xlc/_xlc*.so *.egg-info .mypy_cache .ruff_cache .pytest_cache
