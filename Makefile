# thruway: `make` lists the targets.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
JOBS ?= 2
TARGET := $(or $(CARGO_TARGET_DIR),target)
BIN := $(TARGET)/release
SWEEP := $(BIN)/thruway sweep
# An experiment's sweeps by name, and a number of jobs: goes on after one that fails, and then fails.
SWEEPS = fail=0; for f in $(2); do $(SWEEP) experiments/$(1)/sweeps/$$f.toml --jobs $(3) || fail=1; done; exit $$fail

.NOTPARALLEL:
.PHONY: help setup build run test doctor data clean vae poly poly-foust probe table2 table2-all table5 figure2 table7 tables report \
	estimators bench bench-step bench-delta bench-times parity smoke sbn-grad sbn-grad-sweeps sbn-grad-tables sbn-train \
	bnn bnn-gpu30 bnn-table1 semhash semhash-tables semhash-bench stochbp stochbp-tables nas nas-surrogate nas-table4 nas-tables listops \
	listops-table1 sbn-vae like-for-like like-for-like-more gradient-variance foust-deep foust-table1 gsb-table3

help: ## list the targets
	@awk -F ':.*## ' '/^##@/ { print substr($$0, 5) } /^[a-z0-9-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' Makefile
	@echo 'JOBS=N sets how many runs go side by side (one core each; default 2). Finished runs are kept, killed ones resumed.'

##@ First
setup: ## find or install libtorch 2.11; builds nothing
	@scripts/setup

run: build ## the main job: data, probe, poly, VAEs with six estimators, comparison and report (about ten minutes)
	@JOBS=$(JOBS) scripts/main-job

test: setup ## all tests, how many passed, and which were skipped
	@mkdir -p $(TARGET)
	@cargo test --release 2>&1 | tee $(TARGET)/test.log
	@awk '/^SKIPPED / { skipped++; names = names "\n  " $$0 } /^test result:/ { n++; passed += $$4; ignored += $$8 } \
		END { printf "make test: %d passed, %d skipped, %d ignored, 0 failed, in %d test programs%s\n", \
		passed - skipped, skipped, ignored, n, names }' $(TARGET)/test.log

doctor: build ## versions, threads, CUDA, data, and the remedy for each thing missing
	@$(BIN)/thruway doctor

##@ Parts
build: setup ## compile every binary
	@cargo build --release

data: build ## fetch and verify the data sets
	@$(BIN)/thruway data

clean: ## remove what was built, not data or runs
	@cargo clean

##@ Experiments
vae: build ## one VAE with the paper's settings: make vae PRESET=8x4 ESTIMATOR=reinmax SEED=0
	$(BIN)/vae --preset $(or $(PRESET),8x4) --estimator $(or $(ESTIMATOR),reinmax) --seed $(or $(SEED),0)

poly: build ## polynomial programming (Fig. 1)
	$(SWEEP) experiments/poly/sweeps/figure1.json --jobs $(JOBS)

poly-foust: build ## the toy problem of the FouST paper (Fig. 1 there; seconds)
	$(SWEEP) experiments/poly/sweeps/foust-figure1.json --jobs $(JOBS)

sbn-grad: build ## accuracy of every method for stochastic binary networks, small network (PSA paper, Figs. 2 and 3; 37 minutes on a shared core)
	$(BIN)/sbn-grad --seed 1 --samples 10000 --eval-every 100

sbn-grad-sweeps: build ## the same for other widths and depths, and training under four methods (Figs. C.2, C.5, C.6)
	$(call SWEEPS,sbn-grad,width depth training,$(JOBS))

sbn-grad-tables: build ## tables and figures of experiments/sbn-grad, from the results beside them
	$(BIN)/sbn-grad tables experiments/sbn-grad/results/5-5-5 --markdown experiments/sbn-grad/README.md \
		--figures experiments/sbn-grad/results/figures
	$(BIN)/sbn-grad tables experiments/sbn-grad/results/architectures --markdown experiments/sbn-grad/ARCHITECTURES.md \
		--figures experiments/sbn-grad/results/figures
	$(BIN)/sbn-grad tables experiments/sbn-grad/results/training --markdown experiments/sbn-grad/TRAINING.md \
		--figures experiments/sbn-grad/results/figures

stochbp: build ## stochastic backpropagation, Figs. 1 to 3 of its paper, five seeds (about ten minutes on one idle core)
	$(call SWEEPS,stochbp,toys logistic narrow each,$(JOBS))
	$(BIN)/stochbp tables runs/stochbp --figures runs/figures

stochbp-tables: build ## tables of experiments/stochbp/README.md, from the results beside it
	$(BIN)/stochbp tables experiments/stochbp/results --markdown experiments/stochbp/README.md

semhash: build ## semantic hashing of 20 Newsgroups, 64, 8 and 256 bits, nine estimators, 100 epochs and correction (many hours)
	$(call SWEEPS,semhash,bits64 bits8 bits256,$(JOBS))
	$(BIN)/semhash tables runs/semhash --figures runs/figures

semhash-tables: build ## tables of experiments/semhash/README.md, from the results beside it
	$(BIN)/semhash tables $(wildcard experiments/semhash/results/[0-9]*) --markdown experiments/semhash/README.md

semhash-bench: build ## a training step of semhash with sparse and dense input (idle machine)
	$(BIN)/semhash bench --device cpu --markdown experiments/semhash/BENCH.md --out experiments/semhash/bench.json

sbn-train: build ## binary networks on CIFAR-10: PSA and ST on 512 images, every method for four steps on 64, the rate search (minutes)
	$(SWEEP) experiments/sbn-train/sweeps/subset.toml --jobs $(JOBS)
	$(SWEEP) experiments/sbn-train/sweeps/methods.toml --jobs $(JOBS)

bnn: build ## binary weights and activations on CIFAR-10, a quarter of the channels, 14 epochs, three noises (40 minutes each on one idle core)
	$(SWEEP) experiments/bnn/sweeps/narrow.toml --jobs $(JOBS)

bnn-gpu30: build ## the whole network under three noises, 30 epochs, one seed, beside the published end points (GPU; hours)
	$(SWEEP) experiments/bnn/sweeps/gpu30.toml --jobs 1
	$(BIN)/bnn tables runs/bnn/gpu30

bnn-table1: build ## Table 1 of the straight-through paper: three noises, four seeds, 500 epochs (GPU; days)
	$(SWEEP) experiments/bnn/sweeps/table1.toml --jobs 1

sbn-vae: build ## one Bernoulli VAE or belief network: make sbn-vae PRESET=rodeo-2x200 ESTIMATOR=reinmax SEED=0
	$(BIN)/sbn-vae --preset $(or $(PRESET),rodeo-2x200) --estimator $(or $(ESTIMATOR),reinmax) --seed $(or $(SEED),0)

like-for-like: build ## ReinMax, RLOO, DisARM, RODEO in one setting, K = 2, 50 epochs, 3 seeds (hours)
	$(SWEEP) experiments/sbn-vae/sweeps/like-for-like.toml --jobs $(JOBS)

like-for-like-more: build ## the same with BSB, FouST, ST, Double CV, ARMS, and on Omniglot, 20 epochs (hours)
	$(call SWEEPS,sbn-vae,like-for-like-more like-for-like-omniglot like-for-like-analytic,$(JOBS))

gradient-variance: build ## variance of the gradient after 1,000 steps: RLOO, DisARM, Double CV, RODEO, ReinMax (minutes)
	$(SWEEP) experiments/sbn-vae/sweeps/gradient-variance.toml --jobs $(JOBS)

foust-deep: build ## twenty stochastic layers, five epochs (hours)
	$(SWEEP) experiments/sbn-vae/sweeps/foust-deep.toml --jobs $(JOBS)

foust-table1: build ## time of an epoch by estimator, FouST's Table 1 (idle machine)
	$(SWEEP) experiments/sbn-vae/sweeps/foust-table1.toml --jobs 1

gsb-table3: build ## time of an epoch of CSB beside Gumbel-softmax, GSB's Table 3 (idle machine)
	$(call SWEEPS,sbn-vae,gsb-table3 gsb-table3-vae,1)

probe: build ## bias, standard deviation and cosine of every estimator along one trajectory (Fig. 4)
	$(SWEEP) experiments/vae/sweeps/figure4.toml --jobs $(JOBS)

table2: build ## Table 2, column 8x4, 3 seeds, 160 epochs (15 runs of 15 to 30 minutes each on one core)
	$(SWEEP) experiments/vae/sweeps/table2-8x4.toml --jobs $(JOBS)

table2-all: table2 ## Table 2, every column
	$(SWEEP) experiments/vae/sweeps/table2.toml --jobs $(JOBS)

table5: build ## Table 5: 32 latents of 64 classes
	$(SWEEP) experiments/vae/sweeps/table5.toml --jobs $(JOBS)

figure2: build ## Fig. 2: the final loss by temperature
	$(SWEEP) experiments/vae/sweeps/figure2.toml --jobs $(JOBS)

table7: build ## Table 7: the search for hyper-parameters (days)
	$(call SWEEPS,vae,$(notdir $(basename $(wildcard experiments/vae/sweeps/table7*.toml))),$(JOBS))

listops: build ## ListOps with five estimators on symbols, one to three epochs, and the baselines (hours on two cores)
	test -e runs/listops-baselines/0/summary.json || $(BIN)/listops baselines --generated --out runs/listops-baselines/0
	$(SWEEP) experiments/listops/sweeps/short.toml --jobs $(JOBS)

listops-table1: build ## Table 1: ListOps on characters, 20 epochs, five seeds (days)
	$(SWEEP) experiments/listops/sweeps/table1.toml --jobs $(JOBS)

nas-surrogate: build ## architecture search on NATS-Bench's table, every estimator, 20 seeds, and its probes (needs the table; about half an hour)
	$(call SWEEPS,nas,surrogate log-error probe,$(JOBS))
	$(BIN)/nas tables runs/nas/surrogate runs/nas/log-error runs/nas/probe --figures runs/figures

nas: build ## architecture search on a part of CIFAR-10, ReinMax and STGS (about twenty minutes)
	$(SWEEP) experiments/nas/sweeps/subset.toml --jobs $(JOBS)

nas-table4: build ## Table 4: the published search, both estimators, three seeds (a GPU, hours)
	$(SWEEP) experiments/nas/sweeps/table4.toml --jobs 1

nas-tables: build ## tables of experiments/nas/README.md, from the results beside it
	$(BIN)/nas tables experiments/nas/results --markdown experiments/nas/README.md

tables: table2-all table5 report ## Tables 2 and 5, then the report

##@ Results
report: build ## tables and page from all runs
	$(BIN)/thruway report runs --out runs/report.html

estimators: build ## the table of estimators, into the README
	$(BIN)/thruway estimators --markdown README.md

bench: build ## estimators and training step side by side with PyTorch (installs the full torch)
	cargo build --release --example bench_server
	$$(scripts/torch-env) benches/compare.py --markdown README.md --markdown benches/README.md

bench-step: build ## PSA's training step beside ST's, by back end: time, memory, gradient error (CPU, one thread; minutes)
	$(BIN)/sbn-train bench --estimators st,psa,psa-exact,psa-expansion --batch-size 8,64 --threads 1 --device cpu \
		--out benches/results/sbn_step_cpu.json --markdown benches/README.md

bench-delta: setup ## PSA's product with Delta by every way over the CIFAR net's backward (CPU, one thread; a minute)
	cargo build --release --example delta_bench
	$(BIN)/examples/delta_bench --out benches/results/delta_cpu.json --markdown benches/README.md

bench-times: build ## the running-time table of the PSA paper (C.2), every method of it: make bench-times DEVICE=cuda
	@mkdir -p runs
	$(BIN)/sbn-train bench --estimators psa,concrete,tanh,reinforce,adf,local-reparam,st,hard-st --batch-size 64 --epoch \
		--device $(or $(DEVICE),auto) --out runs/sbn_times.json

parity: build ## training losses side by side with PyTorch, live (installs the full torch)
	$(BIN)/thruway data mnist
	$$(scripts/torch-env) tests/parity/live_parity.py

smoke: build ## every command the README names, short
	@scripts/smoke
