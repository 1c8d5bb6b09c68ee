# `make` lists the targets. Each takes CONFIG=configs/NAME.toml and writes under build/NAME/.
CONFIG ?= configs/megabit.toml
PYTHON ?= python3

NAME := $(basename $(notdir $(CONFIG)))
BUILD := build/$(NAME)
RUN := .venv/bin/python
SOURCES := $(wildcard export/*.py hw/*.py)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test verilog synth eval train plots lint bench clean

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  CONFIG=configs/NAME.toml chooses the design (now $(CONFIG))"

demo: .venv/.base  ## classify photographs with the generated Verilog, in Verilator
	@$(RUN) -m sim.demo $(CONFIG)

test: .venv/.test  ## run all tests
	@$(RUN) -m pytest -q

verilog: $(BUILD)/engine.json  ## write engine.v, its memory files and engine.json

synth: $(BUILD)/engine.json  ## map the engine to the configured FPGA and report its size
	@$(RUN) -m hw.synth $(CONFIG)

eval: .venv/.base  ## measure the accuracy of the integer network on CIFAR-10
	@$(RUN) -m sim.evaluate $(CONFIG)

train: .venv/.train  ## train the network and convert it to integers
	@$(RUN) -m model.train $(CONFIG)
	@$(RUN) -m export.convert $(CONFIG)

plots: .venv/.train  ## draw the training curve and the weights' levels into docs/img
	@$(RUN) -m model.plots $(CONFIG)

lint: .venv/.lint build/tiny/engine.json $(BUILD)/engine.json  ## check Python and Verilog
	@.venv/bin/ruff check
	@$(RUN) -m hw.tools lint $(sort build/tiny $(BUILD))

bench: .venv/.base  ## compare arrays and precisions
	@$(RUN) -m hw.bench $(CONFIG)

clean:  ## remove what was generated, but neither trained networks, data nor .venv
	@rm -rf .pytest_cache .ruff_cache *.egg-info
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
	@if [ -d build ]; then find build -mindepth 2 -maxdepth 2 \
	    -not -path 'build/data/*' -not -name train -exec rm -rf {} +; fi

# engine.json is written last, so the rest is there if it is.
$(BUILD)/engine.json: $(CONFIG) $(wildcard weights/$(NAME).npz) $(SOURCES) | .venv/.base
	@$(RUN) -m hw.generate $(CONFIG) -o $(@D)

ifneq ($(BUILD),build/tiny)
build/tiny/engine.json: configs/tiny.toml $(wildcard weights/tiny.npz) $(SOURCES) | .venv/.base
	@$(RUN) -m hw.generate $< -o $(@D)
endif

# --- Virtual environment: one stamp for each set of dependencies -----------------------------------

.venv/.base: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "Hexlane needs Python 3.11 or later; name one with PYTHON=python3.11" >&2; exit 1; }
	@[ -x $(RUN) ] || $(PYTHON) -m venv .venv
	@echo "install into .venv: base"
	@.venv/bin/pip install -qq --disable-pip-version-check --editable '.'
	@touch $@

.venv/.train .venv/.test .venv/.lint: .venv/.%: .venv/.base
	@echo "install into .venv: $*"
	@.venv/bin/pip install -qq --disable-pip-version-check --editable '.[$*]'
	@touch $@
