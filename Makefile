# Each target is one command of the tool; SPEC=… and ARGS=… pass through. Set-up happens by itself.
SPEC ?= spec.yaml
ARGS ?=
BIN := .venv/bin
PYTHON ?=
# Another build of torch than PyPI's, from PyTorch's own index: auto, cpu, cu126 …; it stays until another is named.
TORCH ?= $(shell cat .venv/torch 2>/dev/null)
# Parts of the lock beyond requirements/base.txt, such as deepspeed.
EXTRAS ?=
SETUP = $(or $(PYTHON),python3) scripts/setup.py --python='$(PYTHON)' --torch='$(TORCH)' $(EXTRAS)
# Named after the content of what it depends on, so that a checkout that only touches files installs nothing.
WHAT := $(shell cat pyproject.toml requirements/*.txt scripts/setup.py scripts/llama_wheel.py scripts/only_llama.cmake | sha256sum | cut -c1-16)
READY := .venv/.ready-$(WHAT)
DEV := .venv/.ready-dev-$(WHAT)
# Compiled modules are kept, whatever the shell says (images of Docker often say no): each process of a stage and of a test
# would compile torch and transformers anew, for seconds.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help setup lock upgrade check plan train evaluate export all sweep report test test-slow test-nightly test-ray test-servers faults sabotage lint audit sbom compat bench zoo docs clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY):
	@$(SETUP)
	@touch $(READY)

$(DEV):
	@$(SETUP) dev
	@touch $(READY) $(DEV)

setup: ## Install everything into .venv, or repair it (TORCH=cpu, EXTRAS=deepspeed, PYTHON=python3.12)
	@$(SETUP)
	@touch $(READY) $(if $(filter dev,$(EXTRAS)),$(DEV))

lock: ## Fit requirements/*.txt to pyproject.toml, changing as little as can be
	@$(BIN)/python scripts/lock.py --renew --uv $(BIN)/uv

upgrade: $(DEV) ## The newest versions of everything into the lock, kept only when the tests pass
	@$(BIN)/python scripts/lock.py --upgrade --uv $(BIN)/uv

check: $(READY) ## Validate the spec and its data
	@$(BIN)/orchestrator check $(SPEC) $(ARGS)

plan: $(READY) ## Show the stages, what is up to date and why
	@$(BIN)/orchestrator plan $(SPEC) $(ARGS)

train: $(READY) ## Train
	@$(BIN)/orchestrator train $(SPEC) $(ARGS)

evaluate: $(READY) ## Train if needed, then score base and tuned model
	@$(BIN)/orchestrator evaluate $(SPEC) $(ARGS)

export: $(READY) ## Evaluate if needed, then make GGUF files and prove them
	@$(BIN)/orchestrator export $(SPEC) $(ARGS)

all: $(READY) ## The whole chain
	@$(BIN)/orchestrator run $(SPEC) $(ARGS)

sweep: $(READY) ## Many runs from the spec's sweep section
	@$(BIN)/orchestrator sweep $(SPEC) $(ARGS)

report: $(READY) ## One HTML page of the newest run
	@$(BIN)/orchestrator report $(ARGS)

test: $(DEV) ## What is run before each commit, real tools included
	@$(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder $(ARGS)

test-slow: $(DEV) ## What takes minutes: whole chains again and again, kills, two processes, the board
	@$(BIN)/pytest -m "slow and not nightly" $(ARGS)

test-nightly: $(DEV) ## What takes many minutes
	@$(BIN)/pytest -m nightly --ignore=tests/servers $(ARGS)

test-ray: $(DEV) ## Trials on a Ray cluster; Ray stays out of .venv, where every stage would import it
	@[ -d .venv/ray/ray ] || $(BIN)/uv pip install -q --python $(BIN)/python --target .venv/ray --no-deps --require-hashes -r requirements/ray.txt || \
		echo "Ray cannot be installed here: its tests will be skipped"
	@PYTHONPATH=$(CURDIR)/.venv/ray $(BIN)/pytest tests/integration/test_ray.py $(ARGS) || [ $$? -eq 5 ]

test-servers: $(DEV) ## Against a real Ollama: OLLAMA_HOST, or `ollama` on PATH, started and ended; skipped without
	@$(BIN)/pytest -m nightly -rs tests/servers $(ARGS)

faults: $(DEV) ## Kill and starve whole chains some 400 times; nothing may be lost (ten minutes)
	@$(BIN)/python -m tests.faults $(ARGS)

sabotage: $(DEV) ## Damage every file of a finished run; nothing may pass; writes docs/sabotage.md (a quarter of an hour)
	@$(BIN)/python -m tests.sabotage $(ARGS)

lint: $(DEV) ## ruff, mypy and bandit
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/bandit -q -c pyproject.toml -r orchestrator scripts setup.py

audit: $(DEV) ## Ask for known weaknesses of the installed packages (needs the network)
	@mkdir -p dist && $(BIN)/uv pip freeze --python $(BIN)/python --exclude-editable > dist/installed.txt
	@$(BIN)/pip-audit --strict --no-deps --disable-pip --progress-spinner off -r dist/installed.txt $(ARGS) || \
		{ echo "audit: failed: a weakness is listed above, or the advisory service did not answer for every package" >&2; exit 1; }

sbom: $(DEV) ## List what is installed, as CycloneDX, in dist/sbom.json
	@mkdir -p dist && $(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible -o dist/sbom.json $(BIN)/python

compat: $(DEV) ## Try other versions of Python, LLaMA-Factory and transformers; writes docs/compat.md (hours)
	@$(BIN)/python scripts/compat.py $(ARGS)

bench: $(DEV) ## Measure against the bare tools; writes benchmarks/results.json
	@$(BIN)/python -m benchmarks $(ARGS)

zoo: $(DEV) ## Take the models that people bring through the whole chain; writes docs/models.md (an hour)
	@$(BIN)/python -m benchmarks.zoo $(ARGS)

docs: $(DEV) ## Write the generated parts of README.md and README.zh.md anew
	@$(BIN)/python scripts/readme.py

clean: ## Remove caches; runs and .venv stay
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist *.egg-info
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
