# `make` lists the targets. Each takes CONFIG=configs/NAME.toml and writes under build/NAME/.
CONFIG ?= configs/megabit.toml
PYTHON ?= python3

# Any name reaches the commands as it is, through the environment: neither make nor the shell reads it.
override CONFIG := $(value CONFIG)
export CONFIG
BOARD ?= ulx3s-85f
override BOARD := $(value BOARD)
export BOARD
IMAGES ?= pictures
override IMAGES := $(value IMAGES)
export IMAGES

RUN := .venv/bin/hexlane
TEST := .venv/bin/python -m pytest -q
# One more than cores, as tests wait for the programs that they start.
WORKERS = $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo quick test regress verilog simulate estimate synth pnr peers bitstream eval train plots lint bench codec-bench clean

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  CONFIG=configs/NAME.toml chooses the design; '.venv/bin/hexlane --help' has more"

demo: .venv/.base  ## classify photographs with the generated Verilog, in Verilator
	@$(RUN) demo "$$CONFIG"

quick: .venv/.test  ## run the tests that take seconds
	@$(TEST) -n auto --dist worksteal -m "not slow and not long"

test: .venv/.test  ## run all tests but the longest
	@$(TEST) -n $(WORKERS) --dist worksteal -m "not long"

regress: .venv/.test  ## run every test
	@$(TEST) -n $(WORKERS) --dist worksteal

estimate: .venv/.base  ## print cycles, bits and estimated area, from the configuration alone
	@$(RUN) estimate "$$CONFIG"

verilog: .venv/.base  ## write engine.v and what belongs to it
	@$(RUN) generate "$$CONFIG"

simulate: .venv/.base  ## run random frames through the Verilog and compare every layer
	@$(RUN) simulate "$$CONFIG"

synth: verilog  ## map the engine to the configured FPGA and report its size
	@$(RUN) synth "$$CONFIG"

pnr: verilog .venv/.pnr  ## place and route it: the clock, and frames per second that follow
	@$(RUN) pnr "$$CONFIG"

peers: .venv/.pnr .venv/.peers  ## compare with other generators' circuits: HEXLANE_FINN=folder
	@$(RUN) peers configs/megabit.toml configs/cifar10.toml

bitstream: .venv/.pnr .venv/.board  ## make the file for a board; BOARD=NAME chooses it
	@$(RUN) board build "$$CONFIG" "$$BOARD"

eval: .venv/.base  ## measure the accuracy of the integer network on CIFAR-10
	@$(RUN) evaluate "$$CONFIG"

train: .venv/.train  ## train the network and convert it to integers
	@$(RUN) train "$$CONFIG" --table weights/teacher.views.npz
	@$(RUN) convert "$$CONFIG"

plots: .venv/.train  ## draw the training curve and the weights' levels into docs/img
	@$(RUN) plots "$$CONFIG"

lint: .venv/.lint  ## check Python and Verilog
	@.venv/bin/ruff check
	@$(RUN) lint configs/tiny.toml "$$CONFIG"

codec-bench: .venv/.train  ## compare compression with other codecs: IMAGES=folder, HEXLANE_IMAGES=folder
	@$(RUN) codec-bench "$$IMAGES" --draw build/codec

bench: .venv/.base  ## print what one element costs, for each set of precisions
	@$(RUN) bench "$$CONFIG"

clean:  ## remove what was generated, but neither trained networks, data nor .venv
	@rm -rf .pytest_cache .ruff_cache *.egg-info
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
	@if [ -d build ]; then find build -mindepth 2 -maxdepth 2 \
	    -not -path 'build/data/*' -not -path 'build/teacher/*' -not -name train -exec rm -rf {} +; fi

# --- Virtual environment: one stamp for each set of dependencies -----------------------------------

.venv/.base: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "Hexlane needs Python 3.11 or later; name one with PYTHON=python3.11" >&2; exit 1; }
	@[ -x .venv/bin/python ] || $(PYTHON) -m venv .venv
	@echo "install into .venv: base"
	@.venv/bin/pip install -qq --disable-pip-version-check --editable '.'
	@touch $@

.venv/.train .venv/.pnr .venv/.peers .venv/.board .venv/.test .venv/.lint: .venv/.%: .venv/.base
	@echo "install into .venv: $*"
	@.venv/bin/pip install -qq --disable-pip-version-check --editable '.[$*]'
	@touch $@
