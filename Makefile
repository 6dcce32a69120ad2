# `make demo` and `make test` set up all they need in .venv and then run; a second run reuses it.
# TORCH=cpu|cuda|default chooses the build of PyTorch; see .ci/environment.py.
PYTHON ?= python3
VENV ?= .venv
SETUP := $(PYTHON) .ci/environment.py $(VENV)
export TORCH

.PHONY: demo test test-core lint docs clean

demo:
	$(SETUP)
	$(VENV)/bin/python apps/fit_mesh.py assets/bunny.obj --out out/bunny --overwrite

# A process per core; the tests of a file stay together, which shares what they fit, and the files
# keep the order of tests/conftest.py.
test:
	$(SETUP) --tests
	$(VENV)/bin/python .ci/kernels.py
	$(VENV)/bin/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

# The tests that need no optional part.
test-core:
	$(SETUP) --tests --core
	$(VENV)/bin/python .ci/kernels.py
	$(VENV)/bin/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

lint:
	$(SETUP) --tests
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright --pythonpath $(VENV)/bin/python

# The site of docs/, in out/site/index.html; a link that leads nowhere is an error.
docs:
	$(SETUP) --tests
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict --quiet

clean:
	rm -rf $(VENV) out
