# Everything starts here. The commands install what they need: Python packages
# into .venv, and Debian's when they run as root (else they say what is missing).

PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

comma := ,

define install
	@echo "installing truecount[$(1)] into $(VENV)"
	@$(PIP) install --editable '.[$(1)]' || \
	    { echo 'pip could not install what truecount needs: is there a network?' >&2; exit 1; }
endef

need_compiler := tools/need 'command -v cc && test -e /usr/include/stdio.h' gcc libc6-dev
need_zookeeper := tools/need 'test -e /usr/share/java/zookeeper.jar && command -v java' zookeeper default-jre-headless

.PHONY: demo test lint bench soak servers clean

demo: $(VENV)/has-demo
	@$(BIN)/python -m truecount demo

# What lacks a server or a compiler skips its tests, with a loud line; in CI it fails.
test: $(VENV)/has-dev servers
	@$(need_compiler) || true
	@tools/need 'test -x /usr/sbin/pgbouncer || command -v pgbouncer' pgbouncer || true
	@$(need_zookeeper) || true
	$(BIN)/python -m pytest -n 2 --dist loadscope

lint: $(VENV)/has-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/mypy tests/typed_examples.py
	$(BIN)/pyright --pythonpath $(BIN)/python tests/typed_examples.py

# Comparisons, into docs/benchmarks.md.
bench: $(VENV)/has-bench servers
	@$(need_compiler)
	@$(need_zookeeper)
	$(BIN)/python -m bench

# Longer proof than the tests have time for, into docs/evidence.md.
# MINUTES=1: so long for each store; STORE=redis: only this one; SEED=7: with these dice;
# JOBS=2: two stores at once.
soak: $(VENV)/has-dev servers
	$(BIN)/python -m bench.soak $(if $(MINUTES),--minutes $(MINUTES)) \
	    $(if $(STORE),--store $(STORE)) $(if $(SEED),--seed $(SEED)) $(if $(JOBS),--jobs $(JOBS))

servers:
	@tools/need 'command -v redis-server && command -v redis-cli' redis-server || true
	@tools/need 'ls /usr/lib/postgresql/*/bin/postgres' postgresql || true
	@tools/need 'command -v etcd' etcd-server || true
	@tools/need 'ls /usr/lib/*/faketime/libfaketimeMT.so.1' libfaketime || true

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/has-demo: pyproject.toml $(VENV)/made
	$(call install,cli$(comma)simpledb$(comma)simpledb-local)
	@touch $@

$(VENV)/has-dev: pyproject.toml $(VENV)/made
	$(call install,dev)
	@touch $@ $(VENV)/has-demo

$(VENV)/has-bench: pyproject.toml $(VENV)/made
	$(call install,bench)
	@touch $@ $(VENV)/has-dev $(VENV)/has-demo

# Made anew where it does not work: its Python is gone, or the clone was moved.
ifneq ($(shell { $(BIN)/python -c 'import pip' && cat $(VENV)/made; } 2>/dev/null),$(CURDIR))
.PHONY: $(VENV)/made
endif

$(VENV)/made:
ifeq ($(origin PYTHON),file)
	@tools/need 'command -v $(PYTHON)' python3
endif
	@command -v $(PYTHON) >/dev/null || \
	    { echo 'there is no command $(PYTHON) (make PYTHON=... names another)' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo 'too old: $(PYTHON); truecount needs Python 3.11 or newer (make PYTHON=... names another)' >&2; exit 1; }
	@tools/need '$(PYTHON) -c "import ensurepip, venv"' python3-venv
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	@echo '$(CURDIR)' >$@
