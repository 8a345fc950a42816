# Everything happens in .venv, runs/ and site/ of this checkout.
PYTHON ?= python3
BIN := .venv/bin
export XDG_CACHE_HOME := $(CURDIR)/.venv/cache
export MPLCONFIGDIR := $(CURDIR)/.venv/cache/matplotlib
export TORCHINDUCTOR_CACHE_DIR := $(CURDIR)/.venv/cache/inductor

.PHONY: demo test slow check docs notebooks cost pretrained clean

demo: .venv/installed  ## train, sample, certify and compare on real digits
	$(BIN)/python -m benchmarks.demo

# By file: fixtures are made once, and documented commands find what earlier ones left behind.
test: .venv/installed  ## the default test suite, on all cores
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

slow: .venv/installed  ## the tests that the default suite leaves out
	$(BIN)/python -m pytest -m slow -n auto --dist loadfile --no-loadscope-reorder

check: .venv/installed  ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/installed  ## the documentation site, to be opened at site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

notebooks: .venv/installed  ## run the notebooks anew and store what they show
	$(BIN)/python -m website.run_notebooks

cost: .venv/installed  ## what an energy costs beside the same network without one
	$(BIN)/python -m benchmarks.cost

pretrained: .venv/installed  ## remake the export in pretrained/
	$(BIN)/python -m benchmarks.demo --total_images 320000 --out runs/pretrained
	mkdir -p pretrained/digits_energy_unet
	cp runs/pretrained/energy/export/* pretrained/digits_energy_unet/

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	@echo "Installing into .venv (a minute or two)"
	$(BIN)/python -m pip install --quiet -e '.[dev]' -c constraints.txt
	touch $@

clean:
	rm -rf .venv runs site
