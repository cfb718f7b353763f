# make demo        the whole method in miniature: data, three stages, evaluation; out/demo/report.md
# make test        the tests (under 8 minutes on 2 cores); make test-all also runs the slow ones, and gpu ones where a GPU is
# make lint        ruff
# PYTHON=...       use an environment that exists (torch >= 2.11, transformers >= 5.17) instead of making .venv

ifdef PYTHON
READY :=
else
PYTHON := .venv/bin/python
READY := .venv/installed
endif
BASE_PYTHON ?= python3

.PHONY: demo test test-all lint clean
demo: $(READY)
	$(PYTHON) experiments/demo.py

test: $(READY)
	$(PYTHON) -m pytest

test-all: $(READY)
	$(PYTHON) -m pytest -m "slow or not slow"

lint: $(READY)
	$(PYTHON) -m ruff check .

.venv/installed: requirements.txt
	@$(BASE_PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		(echo "error: $(BASE_PYTHON) is older than Python 3.10; make BASE_PYTHON=/path/to/python3.12 $(MAKECMDGOALS)"; exit 1)
	@$(BASE_PYTHON) -c 'import venv, ensurepip' || \
		(echo "error: $(BASE_PYTHON) cannot make a .venv; install its venv package (Debian: apt install python3-venv)"; exit 1)
	$(BASE_PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

clean:
	rm -rf out
