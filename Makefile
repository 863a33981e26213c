# Everything a newcomer needs: `make demo`, then `make test`. `make help` lists the rest.
# The work is done by the scripts in tools/; nothing here needs root or a system MPI.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-quick proof horovod lint format bench lock clean

# The embedded mpirun is the one on the PATH, whatever else the machine has.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export PYTHON

# A site's proxy signs with the site's own certificate, which the system knows and uv does not.
ifneq ($(wildcard /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt),)
export UV_SYSTEM_CERTS ?= 1
endif

build_horovod = .venv/bin/python tools/build_horovod.py --uv "$$(tools/find_uv.sh .venv/bin/python)"

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 14

setup: ## make the environment .venv, with .venv/bin/clusterseg
	@tools/setup.sh runtime

demo: setup ## train on synthetic data with two ranks, and print the summary
	clusterseg data synth --format camvid "$${CLUSTERSEG_DEMO_DATA:-demo-data}" --size 96x128 --train 800 --val 80 --test 0
	clusterseg submit jobs/demo.yaml --follow

horovod: setup ## build Horovod for the embedded MPI and install it into .venv
	@$(build_horovod)

test: ## the whole suite, and everything it needs
	@tools/system_packages.sh
	@tools/setup.sh dev
	@$(build_horovod) || [[ $$? -eq 3 ]] # no compiler: the tests that need it are skipped by name
	@tools/mpis.sh
	@tools/cityscapes.sh
	@tools/run_tests.sh test

test-quick: ## the tests that take seconds
	@tools/setup.sh dev
	@pytest -m "not slow and not horovod and not launchers"

proof: ## every fault, on a real Slurm: both launchers, the real trainer; and tests that take long
	@tools/system_packages.sh
	@tools/setup.sh dev
	@tools/mpis.sh
	@tools/cityscapes.sh
	@tools/qonnx.sh
	@tools/run_tests.sh proof

lint: ## ruff, mypy, and the rules of who imports whom
	@tools/setup.sh dev
	ruff check
	ruff format --check
	mypy
	lint-imports --no-cache

format: ## let ruff mend what it can
	@tools/setup.sh dev
	ruff check --fix
	ruff format

bench: ## run the benchmarks and print one table
	@tools/setup.sh dev
	@python benchmarks/run

lock: ## compile the locks anew from pyproject.toml and tools/*.in
	@tools/lock.sh

clean: ## remove what make made in this folder (not runs, data, or caches at home)
	rm -rf .venv .tools .pytest_cache .mypy_cache .ruff_cache .hypothesis dist build benchmarks/results
	find clusterseg tests benchmarks tools -name __pycache__ -type d -prune -exec rm -rf {} +
