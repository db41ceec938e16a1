PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
INSTALLED = $(VENV)/.installed
# A file of tests stays in one process; in the order of the folders, so that short ones fill the end.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 \
	--dist loadfile --no-loadscope-reorder

.PHONY: train test test-slow docs clean

train: $(INSTALLED)
	$(BIN)/python recipes/train.py hparams/s5.yaml

# Types are not checked on Python 3.10: the stubs of its last NumPy and pandas differ.
test: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	if $(BIN)/python -c "import sys; sys.exit(sys.version_info < (3, 11))"; then $(BIN)/mypy; fi
	$(PYTEST) -m "not slow"

# The rest: trainings that are killed, several processes, whole models, the wheel, the site, the page in a browser.
test-slow: $(INSTALLED)
	$(PYTEST) -m slow

docs: $(INSTALLED)
	$(BIN)/python -m sphinx -W --keep-going -q -d build/doctrees docs build/docs

# The stamp is written last: an installation that was interrupted is taken up again.
$(INSTALLED): setup.cfg pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis
