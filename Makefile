# make install     .venv with all that the scripts need, in the versions of constraints.txt
# make demo        the whole method in miniature: data, three stages, evaluation; out/demo/report.md
# make test        the tests; make test-core those of the training alone; make test-all the slow ones too
# make lint        ruff
# JOBS=2           processes that run the tests
# PYTHON=...       use an environment that exists (torch >= 2.11, transformers >= 5.17) instead of making .venv

ifdef PYTHON
READY :=
READY_TO_TEST :=
else
PYTHON := .venv/bin/python
READY := .venv/installed
READY_TO_TEST := .venv/installed-dev
endif
BASE_PYTHON ?= python3
JOBS ?= 2
PYTEST = OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n $(JOBS) --dist loadfile
INSTALL := .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: install demo test test-core test-all lint clean
install: $(READY)

demo: $(READY)
	$(PYTHON) -m experiments.demo

test: $(READY_TO_TEST)
	$(PYTEST)

test-core: $(READY_TO_TEST)
	$(PYTEST) tests/*.py

test-all: $(READY_TO_TEST)
	$(PYTEST) -m "slow or not slow"

lint: $(READY_TO_TEST)
	$(PYTHON) -m ruff check .

.venv/bin/python:
	@$(BASE_PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		(echo "error: $(BASE_PYTHON) is older than Python 3.10; make BASE_PYTHON=/path/to/python3.12 $(MAKECMDGOALS)"; exit 1)
	@$(BASE_PYTHON) -c 'import venv, ensurepip' || \
		(echo "error: $(BASE_PYTHON) cannot make a .venv; install its venv package (Debian: apt install python3-venv)"; exit 1)
	$(BASE_PYTHON) -m venv .venv

.venv/installed: pyproject.toml constraints.txt | .venv/bin/python
	$(INSTALL) . && rm -rf build nanopuma.egg-info
	@touch $@

.venv/installed-dev: pyproject.toml constraints.txt | .venv/bin/python
	$(INSTALL) '.[dev]' && rm -rf build nanopuma.egg-info
	@touch $@ .venv/installed

clean:
	rm -rf out
