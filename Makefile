# Two of these do all set-up on a fresh machine: `make demo` and `make test`. `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# The environment's own bytecode is compiled when it is installed; ours may be written beside the sources.
unexport PYTHONDONTWRITEBYTECODE
export PATH := $(CURDIR)/$(BIN):$(PATH)
export OMP_NUM_THREADS ?= 1

.PHONY: help install demo test test-unit test-models test-local test-kubernetes test-node test-gpu test-scenarios cluster-up cluster-down chaos check format lock images generate bench zoo clean

help: ## Show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

install: $(READY) ## Install everything, locked, into .venv

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' \
	  || { echo "Headrace needs Python 3.11 or 3.12; $(PYTHON) is $$($(PYTHON) --version). Try: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 2; }
	@[ -x $(BIN)/python ] && $(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV) \
	  || { echo "python3 -m venv failed; on Debian: apt-get install python3-venv"; exit 2; }
	@echo "Installing the locked environment into $(VENV) (a few minutes and about 7 GB the first time) ..."
	@$(BIN)/python -m pip install -q --disable-pip-version-check "uv==$$(sed -n 's/^uv==\([^ ]*\).*/\1/p' requirements.lock)"
	@# Without compiled bytecode every worker compiles torch and ray anew (docs/adr/0003).
	@UV_HTTP_TIMEOUT=300 $(BIN)/uv pip sync -q --python $(BIN)/python --require-hashes --compile-bytecode requirements.lock
	@UV_HTTP_TIMEOUT=300 $(BIN)/uv pip install -q --python $(BIN)/python --no-deps --editable .
	@$(BIN)/python -m compileall -q platform pipelines operators models
	@touch $@

demo: $(READY) ## From data to a served prediction, with the seconds of each part
	@$(BIN)/python examples/demo.py

test: $(READY) ## Every check and every tier of tests this machine can run
	@$(BIN)/python tests/run_tiers.py check unit models local kubernetes node

test-unit: $(READY) ## Tests of one process, under a minute
	@$(BIN)/python tests/run_tiers.py unit

test-models: $(READY) ## Real training on small data, to a stated metric
	@$(BIN)/python tests/run_tiers.py models

test-local: $(READY) ## Real Ray, MLflow, kfp.local and Serve on this machine
	@$(BIN)/python tests/run_tiers.py local

test-kubernetes: $(READY) ## A real Kubernetes control plane, KubeRay and Kueue (docs/test-bed.md)
	@$(BIN)/python tests/run_tiers.py kubernetes

test-node: $(READY) ## Real pods: a kubelet, our images, Ray under KubeRay; as root (docs/test-bed.md)
	@$(BIN)/python tests/run_tiers.py node

test-gpu: $(READY) ## Training and serving on a CUDA device, and ResNet-50 beside a bare loop; not part of `make test`
	@$(BIN)/python tests/run_tiers.py gpu

test-scenarios: $(READY) ## All that KubeRay's double plays, on real pods; test-node plays some of it
	@cd tests/kubernetes/testbed && $(CURDIR)/$(BIN)/python -m headrace_testbed.node_tier ray
	@$(BIN)/python -m pytest -q tests/node/test_scenarios.py

CLUSTER ?= .cluster
cluster-up: $(READY) ## Start a control plane with KubeRay in .cluster (CLUSTER=...); NODE=1, as root: with a node
	@$(BIN)/python tests/kubernetes/cluster.py $(if $(NODE),up-node,up) $(CLUSTER)

cluster-down: $(READY) ## End it
	@$(BIN)/python tests/kubernetes/cluster.py down $(CLUSTER)

chaos: $(READY) ## The long storm: 200 SIGKILLs of the operator, 20 restarts of the API server; about 20 minutes
	@$(BIN)/python tests/kubernetes/chaos.py $(STORM)

check: $(READY) ## Lint, format, types, layers, and everything generated
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/shellcheck --severity=warning $$(git ls-files '*.sh' .ci/run)
	@$(BIN)/hadolint $$(git ls-files '*Containerfile')
	@$(BIN)/lint-imports
	@$(BIN)/mypy
	@$(BIN)/python -m headrace.cli.reference --check
	@$(BIN)/python -m headrace.api.crd --check
	@$(BIN)/python -m headrace_operators.rbac --check
	@$(BIN)/python -m headrace_operators.prerequisites --check
	@$(BIN)/python -m headrace_operators.chart_reference --check
	@$(BIN)/python -m headrace.cluster.rights --check
	@$(BIN)/python -m headrace_operators.metrics_reference --check
	@$(BIN)/python -m headrace.monitoring.generate --check
	@$(BIN)/python -m headrace_pipelines.compiler --check
	@rm -rf .lock.tmp && mkdir .lock.tmp && cp --parents $(LOCKED) .lock.tmp && $(MAKE) --no-print-directory lock LOCKS=.lock.tmp
	@for lock in $(LOCKED); do diff -q $$lock .lock.tmp/$$lock >/dev/null \
	  || { rm -rf .lock.tmp; echo "$$lock does not match what it is made from: run 'make lock'"; exit 1; }; done
	@rm -rf .lock.tmp

format: $(READY) ## Format and fix what can be fixed
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

generate: $(READY) ## Write everything that is generated (references, schema, golden pipeline)
	@$(BIN)/python -m headrace.cli.reference
	@$(BIN)/python -m headrace.api.crd
	@$(BIN)/python -m headrace_operators.rbac
	@$(BIN)/python -m headrace_operators.prerequisites --generate
	@$(BIN)/python -m headrace_operators.chart_reference
	@$(BIN)/python -m headrace.cluster.rights
	@$(BIN)/python -m headrace_operators.metrics_reference
	@$(BIN)/python -m headrace.monitoring.generate
	@$(BIN)/python -m headrace_pipelines.compiler

LOCKS ?= .
RAY_IMAGE := tests/kubernetes/testbed/images/ray
LOCKED := requirements.lock images/tools.lock $(patsubst %,images/%/requirements.lock,operator runtime mlflow) \
  $(RAY_IMAGE)/requirements.lock
RESOLVE := $(BIN)/uv pip compile -q --generate-hashes --no-emit-index-url --no-annotate --no-header --python-version 3.11 --universal
# An image's lock is a part of requirements.lock.
PART := -c $(LOCKS)/requirements.lock
lock: ## Resolve all locks anew, keeping pins that still fit (UPGRADE=--upgrade to move them)
	@$(RESOLVE) pyproject.toml --all-extras --group dev $(UPGRADE) -o $(LOCKS)/requirements.lock
	@$(RESOLVE) images/tools.in $(PART) $(UPGRADE) -o $(LOCKS)/images/tools.lock
	@$(RESOLVE) pyproject.toml $(PART) --extra operator -o $(LOCKS)/images/operator/requirements.lock
	@$(RESOLVE) pyproject.toml $(PART) --extra train --extra serve --extra pipelines --extra cluster \
	  -o $(LOCKS)/images/runtime/requirements.lock
	@$(RESOLVE) pyproject.toml $(PART) --extra mlflow-server -o $(LOCKS)/images/mlflow/requirements.lock
	@$(RESOLVE) $(RAY_IMAGE)/requirements.in $(PART) -o $(LOCKS)/$(RAY_IMAGE)/requirements.lock

images: $(READY) ## The images as OCI archives in build/images, by docker or podman, else packed here as root (docs/images.md)
	@PYTHONPATH=tests/kubernetes/testbed $(BIN)/python -m headrace_testbed.images $(IMAGES)

bench: $(READY) ## Benchmarks beside peers; prints tables (tests/benchmarks)
	@for file in tests/benchmarks/*.py; do echo "== $$file"; $(BIN)/python $$file; done

zoo: $(READY) ## Every example of the zoo, from data to an answer, into docs/models/zoo.md (ONLY="yolo unet", BCCD=FOLDER)
	@$(BIN)/python examples/zoo_table.py $(ONLY) $(if $(BCCD),--bccd $(BCCD))

clean: ## Remove the environment and everything built
	@rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .coverage htmlcov
	@find platform pipelines operators models tests -name __pycache__ -type d -prune -exec rm -rf {} +
