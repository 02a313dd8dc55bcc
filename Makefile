# make quickstart   set up, then the main job on simulated mice, in a few minutes
# make test         set up, then all tests
# make faults       kills, outages, machines that come and go, jobs on a cluster: an hour
# make check        ruff and mypy
# make wheel-test   the wheel, installed in a clean environment and used from elsewhere
# make bench        benchmarks, each a table and JSON
# make docs         the documentation as a site, in site/
# make setup        the environment alone, in .venv
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready

.PHONY: setup quickstart test faults check wheel-test bench docs clean

setup: $(READY)

# Processes of Ray import the same modules again and again: what Python compiled must be kept, although
# the images of some containers tell it not to.
export PYTHONDONTWRITEBYTECODE :=

# torch comes first and alone, by its pin: nothing that is installed later can then choose another build.
# pip would compile what it installs on one core; compileall does it on all.
INSTALL = $(RUN) -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] < (3, 11) and "Ethoray needs Python 3.11 or newer, this is " + sys.version.split()[0] + ": make PYTHON=/path/to/python3.11")'
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(INSTALL) torch
	$(INSTALL) 'setuptools>=77'
	$(INSTALL) --no-build-isolation -e '.[dev,trackers,share,video]'
	$(RUN) -m compileall -qq -j 0 $(VENV)/lib || true  # some packages hold files of other Pythons
	@touch $(READY)

quickstart: setup
	$(RUN) finetune/quickstart.py

test: setup
	$(RUN) -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations 30 $(ARGS)

faults: setup
	$(RUN) -m pytest -m faults tests/faults tests/test_job.py $(ARGS)

check: setup
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

wheel-test:
	PYTHON=$(PYTHON) tests/check_wheel.sh

bench: setup
	$(RUN) benchmarks/run_all.py

docs: setup
	COLUMNS=100 NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict

clean:
	rm -rf $(VENV) *.egg-info .pytest_cache .mypy_cache .ruff_cache
