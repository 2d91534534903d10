# Each target is one command of the tool; SPEC=… and ARGS=… pass through. Set-up happens by itself.
SPEC ?= spec.yaml
ARGS ?=
BIN := .venv/bin
# Named after the content of what it depends on, so that a checkout that only touches files installs nothing.
READY := .venv/.ready-$(shell cat pyproject.toml constraints.txt scripts/setup.sh | sha256sum | cut -c1-16)

.DEFAULT_GOAL := help
.PHONY: help setup check plan train evaluate export all sweep report test test-slow test-ray test-servers faults lint audit sbom compat bench docs clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY):
	@scripts/setup.sh
	@rm -f .venv/.ready-* && touch $(READY)

setup: $(READY) ## Install everything into .venv (once; about 8 minutes on 2 cores)

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

test: $(READY) ## The test suite, real tools included
	@$(BIN)/pytest $(ARGS)

test-slow: $(READY) ## What is too slow for `make test`
	@$(BIN)/pytest -m slow $(ARGS)

test-ray: $(READY) ## Trials on a Ray cluster; Ray stays out of .venv, where every stage would import it
	@[ -d .venv/ray/ray ] || $(BIN)/pip install -q --disable-pip-version-check --target .venv/ray -c constraints.txt ray || \
		echo "Ray cannot be installed here: its tests will be skipped"
	@PYTHONPATH=$(CURDIR)/.venv/ray $(BIN)/pytest tests/integration/test_ray.py $(ARGS) || [ $$? -eq 5 ]

test-servers: $(READY) ## Against a real Ollama: OLLAMA_HOST, or `ollama` on PATH, started and ended; skipped without
	@$(BIN)/pytest -m slow -rs tests/servers $(ARGS)

faults: $(READY) ## Kill and starve whole chains some 400 times; nothing may be lost (ten minutes)
	@$(BIN)/python -m tests.faults $(ARGS)

lint: $(READY) ## ruff, mypy and bandit
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/bandit -q -c pyproject.toml -r orchestrator scripts setup.py

audit: $(READY) ## Ask for known weaknesses of the installed packages (needs the network)
	@mkdir -p dist && $(BIN)/pip freeze --exclude-editable > dist/installed.txt
	@$(BIN)/pip-audit --strict --no-deps --disable-pip --progress-spinner off -r dist/installed.txt $(ARGS) || \
		{ echo "audit: failed: a weakness is listed above, or the advisory service did not answer for every package" >&2; exit 1; }

sbom: $(READY) ## List what is installed, as CycloneDX, in dist/sbom.json
	@mkdir -p dist && $(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible -o dist/sbom.json $(BIN)/python

compat: $(READY) ## Try other versions of Python, LLaMA-Factory and transformers; writes docs/compat.md (hours)
	@$(BIN)/python scripts/compat.py $(ARGS)

bench: $(READY) ## Measure against the bare tools; writes benchmarks/results.json
	@$(BIN)/python -m benchmarks $(ARGS)

docs: $(READY) ## Write the generated parts of README.md and README.zh.md anew
	@$(BIN)/python scripts/readme.py

clean: ## Remove caches; runs and .venv stay
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist *.egg-info
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
