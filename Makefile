# Each target sets up what it needs and can be the first on a fresh machine. What is set up is
# remembered in stamp files, so a target repeats an installation only when its list has changed.

PYTHON ?= python3.11 python3
VENV := .venv
BENCH_VENV := .venv-bench
BACKENDS ?= tensorflow jax
ARGS ?=
# Installs into $(VENV) what follows, as in: INSTALL="uv pip install --python .venv/bin/python".
INSTALL ?= $(VENV)/bin/python -m pip install --quiet

TOOLS := $(VENV)/.tools
TENSORFLOW := $(VENV)/.tensorflow
JAX := $(VENV)/.jax
VAEZOO := $(VENV)/.vaezoo
TYPED := $(VENV)/typed/.links
FOLDERS := callbacks cli core data layers losses metrics zoo
PEERS := $(BENCH_VENV)/.peers

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export TF_CPP_MIN_LOG_LEVEL ?= 3
# Set, as images of containers have it, each of the tests' processes would compile all it imports.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# Two pips must not write to one environment at a time.
.NOTPARALLEL:
.PHONY: help demo test test-all lint bench exam

help:  ## Show this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "ARGS is handed on, as in: make test BACKENDS=jax ARGS='-k free_bits -x'"

demo: $(TENSORFLOW) $(VAEZOO)  ## Train small models side by side and show which of them collapse.
	@KERAS_BACKEND=tensorflow $(VENV)/bin/python examples/demo.py $(ARGS)

# Which tests run, by their markers; empty for all.
MARKED = not large and not slow
PYTEST = $(VENV)/bin/python -m pytest -n 2 --dist loadscope -q -m "$(MARKED)" $(ARGS)
# All tests of a further backend run beside those of the first, which leaves no core idle at the
# end of either; what they print follows. What ARGS chooses runs in turn.
BESIDE = $(if $(strip $(ARGS)),,$(wordlist 2,$(words $(BACKENDS)),$(BACKENDS)))

test-all:  ## Run all tests, those that take minutes, too.
	@$(MAKE) --no-print-directory test MARKED=

test: $(TOOLS) $(JAX) $(VAEZOO)  ## Run the quick tests on each of BACKENDS (tensorflow and jax).
	@logs=$$(mktemp -d); jobs=; status=0; \
	trap 'test -z "$$jobs" || kill $$jobs; rm -rf "$$logs"' EXIT; \
	trap 'exit 130' INT TERM; \
	for backend in $(BESIDE); do \
	  KERAS_BACKEND=$$backend $(PYTEST) >"$$logs/$$backend" 2>&1 & \
	  jobs="$$jobs $$!"; \
	done; \
	for backend in $(filter-out $(BESIDE),$(BACKENDS)); do \
	  echo "== Tests on the $$backend backend$(BESIDE:%=, and beside them on %)"; \
	  KERAS_BACKEND=$$backend $(PYTEST) || status=$$?; \
	done; \
	set -- $(BESIDE); \
	for job in $$jobs; do \
	  wait $$job || status=$$?; \
	  echo "== Tests on the $$1 backend"; \
	  cat "$$logs/$$1"; \
	  shift; \
	done; \
	jobs=; \
	exit $$status

# The folders under the names that they are imported by, for the type checker.
$(TYPED): pyproject.toml | $(VENV)/pyvenv.cfg
	@mkdir -p $(@D)/vaezoo
	@ln -sfn $(CURDIR)/package/*.py $(CURDIR)/package/py.typed $(CURDIR)/package/runs \
		$(CURDIR)/package/studies $(FOLDERS:%=$(CURDIR)/%) $(@D)/vaezoo
	@touch $@

# The type checker reads the packages that are imported.
lint: $(TOOLS) $(JAX) $(VAEZOO) $(TYPED)  ## Check style, imports, formatting, spelling and types, as CI does.
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/codespell
	@$(VENV)/bin/mypy --package vaezoo

bench: $(JAX) $(VAEZOO) $(PEERS)  ## Measure vaezoo against its peers.
	@$(VENV)/bin/python -m benchmarks.all $(ARGS)

exam: $(TENSORFLOW) $(VAEZOO)  ## Examine the doctor: right verdicts, named causes, and cures.
	@KERAS_BACKEND=tensorflow $(VENV)/bin/python -m benchmarks.exam $(ARGS)
	@KERAS_BACKEND=tensorflow $(VENV)/bin/python -m benchmarks.exam --cures $(filter --write,$(ARGS))

$(VENV)/pyvenv.cfg $(BENCH_VENV)/pyvenv.cfg:
	@for python in $(PYTHON); do \
	  if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    exec $$python -m venv $(@D); \
	  fi; \
	done; \
	echo "vaezoo needs Python 3.11 or newer. Tried without success: $(PYTHON)" >&2; \
	echo "Name one: make PYTHON=/path/to/python ..." >&2; \
	exit 1

$(TOOLS): requirements-dev.txt | $(VENV)/pyvenv.cfg
	@echo "Installing the development tools in $(VENV) ..."
	@$(INSTALL) -r requirements-dev.txt
	@touch $@

# tensorflow-probability and tfp-nightly fill the same folder: whichever is wanted is installed
# after both are gone, or files of the two would mix.
$(TENSORFLOW): requirements.txt | $(VENV)/pyvenv.cfg
	@echo "Installing TensorFlow and the libraries in $(VENV), once: some minutes ..."
	@$(VENV)/bin/python -m pip uninstall -qq --yes tensorflow-probability tfp-nightly
	@$(INSTALL) -r requirements.txt
	@touch $@

$(JAX): requirements-jax.txt $(TENSORFLOW)
	@echo "Adding JAX to $(VENV), once ..."
	@$(VENV)/bin/python -m pip uninstall -qq --yes tensorflow-probability tfp-nightly
	@$(INSTALL) -r requirements-jax.txt
	@touch $@

# The installed metadata repeat the version and the requirements, so they follow both.
$(VAEZOO): pyproject.toml package/__init__.py requirements.txt | $(VENV)/pyvenv.cfg
	@$(INSTALL) --no-deps --editable .
	@touch $@

$(PEERS): benchmarks/requirements.txt | $(BENCH_VENV)/pyvenv.cfg
	@echo "Installing the peers of the benchmarks in $(BENCH_VENV), once: some minutes ..."
	@$(BENCH_VENV)/bin/python -m pip install --quiet -r benchmarks/requirements.txt
	@touch $@
