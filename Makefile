# `make help` lists the targets. Each one sets itself up: the first run makes .venv from requirements.lock.

PYTHON ?= $(firstword $(foreach name,python3 python3.13 python3.12 python3.11,$(if $(shell $(name) -c \
	'import sys; print((3, 11) <= sys.version_info[:2] <= (3, 13) or "")' 2>/dev/null | grep True),$(name))))
READY := .venv/.ready
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup repro test lint types unit status ui bench lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## make .venv with every dependency as pinned

$(READY): requirements.lock
	@test -n "$(PYTHON)" || { echo "error: needs Python 3.11, 3.12 or 3.13; set PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv --clear .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@touch $(READY)

repro: $(READY) ## run the pipeline: what changed, and what depends on it
	@PIPELINE_STARTED_BY=$$PPID exec python -m pipeline.repro

test: $(READY) lint types unit ## everything that CI checks

lint: $(READY) ## ruff
	ruff check .
	ruff format --check .

types: $(READY) ## mypy
	mypy

unit: $(READY) ## the tests, two files at a time, with real runs of the pipeline at a small setting
	OMP_WAIT_POLICY=passive python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

status: $(READY) ## what is fresh, stale (and why), running or interrupted
	@exec python -m pipeline.status

ui: $(READY) ## MLflow's pages about the runs so far, on http://127.0.0.1:5000
	@exec python -m pipeline.tracking ui

bench: $(READY) ## measure against transformers, side by side
	python -m benchmarks.train_step --cases small-2x1024
	python -m benchmarks.generate

lock: $(READY) ## pin what pyproject.toml asks for and is not pinned yet (remove requirements.lock to pin all anew)
	python -m pip install --quiet uv
	@touch requirements.lock && cp requirements.lock requirements.lock.all
	uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --quiet --no-emit-index-url \
		--no-annotate --no-header --output-file requirements.lock.all > /dev/null
	@# CUDA's libraries are left out: pip brings those that the torch build for this machine asks for.
	awk '/^nvidia-ml-py/ || !/^(nvidia|cuda)-/' requirements.lock.all > requirements.lock.tmp
	mv requirements.lock.tmp requirements.lock && rm requirements.lock.all

clean: ## remove the outputs (DVC's cache keeps them) and work in progress; your data stays
	rm -rf data/ingested data/clean data/tokens artifacts work
