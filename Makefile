# The commands for people who use or develop cnai. `make` lists them; each target first sets up what it needs.

.DEFAULT_GOAL := help
.PHONY: help run demo check test lint format docs bench lock images cluster cluster-down test-cluster bench-cluster install install-dev clean
BIN := .venv/bin
SETUP := @sh tools/python.sh tools/setup.py
# The tests of a file share the processes that they start. A hung worker is not replaced: the next would hang at the same test.
BY_FILE := --dist loadfile --no-loadscope-reorder --max-worker-restart 0
CLUSTER := @PYTHONPATH=tests/cluster $(BIN)/python -m onenode
# Without bytecode files, each of hundreds of processes would compile our modules again.
unexport PYTHONDONTWRITEBYTECODE

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

run: install ## start the workbench: hub, notebooks, apps; Ctrl-C stops it
	@$(BIN)/python -m cnai_hub.local.workbench run

demo: install ## start the workbench, train, publish an app, show the times, stop everything
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

cluster: install-dev ## start a real one-node Kubernetes here (root on Debian; the first start builds it, for minutes)
	$(CLUSTER) up

cluster-down: install-dev ## remove that Kubernetes, except its cache
	$(CLUSTER) down

test-cluster: install-dev ## run the tests on the cluster that KUBECONFIG names, or on one of our own
	$(CLUSTER) exec -- $(BIN)/python -m pytest tests/cluster -n 4 $(BY_FILE) $(ARGS)

bench-cluster: install-dev ## compare with plain KubeSpawner and KubeCluster on the same cluster, write docs/benchmarks.md
	$(CLUSTER) exec -- $(BIN)/python -m bench.cluster $(ARGS)

install: ## set up .venv and the proxy
	$(SETUP) run

install-dev:
	$(SETUP) dev

lock: install-dev ## write locks/*.lock again (UPGRADE=1 takes newer versions)
	@$(BIN)/python tools/lock.py

clean: ## remove the installation; notebooks and runs stay
	rm -rf .venv node_modules build dist .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
