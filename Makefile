# thruway: `make` lists the targets.
.DEFAULT_GOAL := help
SHELL := /bin/bash
JOBS ?= 2
BIN := target/release

.PHONY: help setup build run test doctor data estimators vae poly probe table2 report bench parity clean

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /\1\t/' | awk -F'\t' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: ## find or install libtorch 2.11; builds nothing
	@scripts/setup

build: setup ## compile every binary
	cargo build --release

run: build ## the main job: data, probe, poly, VAEs with six estimators, comparison and report (about ten minutes)
	@scripts/main-job

test: build ## all tests
	cargo test --release

doctor: build ## versions, threads, CUDA, data, and the remedy for each thing missing
	@$(BIN)/thruway doctor

data: build ## fetch and verify the data sets
	$(BIN)/thruway data

estimators: build ## the table of estimators, into the README
	$(BIN)/thruway estimators --markdown README.md

vae: build ## one VAE with the paper's settings: make vae PRESET=8x4 ESTIMATOR=reinmax SEED=0
	$(BIN)/vae --preset $(or $(PRESET),8x4) --estimator $(or $(ESTIMATOR),reinmax) --seed $(or $(SEED),0)

probe: build ## bias, standard deviation and cosine of every estimator along one trajectory (Fig. 4)
	$(BIN)/thruway sweep experiments/vae/sweeps/figure4.json --jobs $(JOBS)

poly: build ## polynomial programming (Fig. 1)
	$(BIN)/thruway sweep experiments/poly/sweeps/figure1.json --jobs $(JOBS)

table2: build ## Table 2, column 8x4, 3 seeds, 160 epochs; starts only what is missing
	$(BIN)/thruway sweep experiments/vae/sweeps/table2-8x4.json --jobs $(JOBS)

report: build ## tables and page from all runs
	$(BIN)/thruway report runs --out runs/report.html

bench: build ## estimators and training step side by side with PyTorch (installs the full torch)
	cargo build --release --example bench_server
	$$(scripts/torch-env) benches/compare.py

parity: build ## training losses side by side with PyTorch, live (installs the full torch)
	$(BIN)/thruway data mnist
	$$(scripts/torch-env) tests/parity/live_parity.py

clean: ## remove what was built, not data or runs
	cargo clean
