# Everything a person does here. `make` lists it; each target sets up what it needs, the second time at once.

.DEFAULT_GOAL := help
.PHONY: help run demo check test lint format docs bench lock images cluster cluster-down test-cluster bench-cluster install install-dev clean
BIN := .venv/bin
SETUP := @sh tools/python.sh tools/setup.py
# The tests of a file share what they start. A worker that hung is not replaced: the next one would hang at the same test.
BY_FILE := --dist loadfile --no-loadscope-reorder --max-worker-restart 0
CLUSTER := @PYTHONPATH=tests/cluster $(BIN)/python -m onenode
# Hundreds of processes would each compile our modules anew.
unexport PYTHONDONTWRITEBYTECODE

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

run: install ## start the workbench: hub, notebooks, apps; Ctrl-C ends it
	@$(BIN)/python -m cnai_hub.local.workbench run

demo: install ## do the workbench's main job once, show the times, stop everything
	@$(BIN)/python -m cnai_hub.local.workbench demo

check: lint ## lint, then the tests that start no processes; within a minute
	@$(BIN)/python -m pytest -n logical --maxprocesses 4 $(BY_FILE) -m "not process" $(ARGS)

test: lint ## lint, then all tests
	@$(BIN)/python -m pytest -n 3 $(BY_FILE) $(ARGS)

lint: install-dev ## style, types, floors, generated pages
	@$(BIN)/python tools/lint.py

format: install-dev ## format the code and write the generated pages
	@$(BIN)/ruff check -q --fix . && $(BIN)/ruff format -q . && $(BIN)/python tools/lint.py --write

bench: install-dev ## compare with other launchers, write docs/benchmarks.md
	@$(BIN)/python -m bench $(ARGS)

images: install ## build the container images (ARGS=-h lists the options)
	@$(BIN)/python -m images $(ARGS)

cluster: install-dev ## start a real one-node Kubernetes here (root on Debian; the first time builds it, minutes)
	$(CLUSTER) up

cluster-down: install-dev ## remove that Kubernetes, all but its cache
	$(CLUSTER) down

test-cluster: install-dev ## tests on the cluster that KUBECONFIG names, or on one of our own
	$(CLUSTER) exec -- $(BIN)/python -m pytest tests/cluster -n 4 $(BY_FILE) $(ARGS)

bench-cluster: install-dev ## compare with plain KubeSpawner and KubeCluster there, write docs/benchmarks.md
	$(CLUSTER) exec -- $(BIN)/python -m bench.cluster $(ARGS)

install: ## set up .venv and the proxy
	$(SETUP) run

install-dev:
	$(SETUP) dev

lock: install-dev ## write locks/*.lock anew (UPGRADE=1 takes newer versions)
	@$(BIN)/python tools/lock.py

clean: ## remove what was set up here; nobody's notebooks or runs
	rm -rf .venv node_modules build dist .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
