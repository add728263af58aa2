# make tour   sets up, then trains a model that talks
# make test   sets up, then runs every test
# make lab    sets up, then opens JupyterLab on chapters/

# The first Python of a supported version; name another with `make PYTHON=/path/to/python tour`.
PYTHON ?= $(shell for name in python3 python3.12 python3.13 python3.11; do \
	$$name -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$name && break; done)
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: tour test lab data results setup-tour setup-test setup-lab clean

tour: setup-tour
	$(BIN)/minimind-edu tour

test: setup-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pytest

lab: setup-lab
	$(BIN)/jupyter lab --notebook-dir=chapters

# Rebuilds the embedded data; the files in datasets/ do not change unless the world does.
data: setup-tour
	$(BIN)/minimind-edu data build

# Writes the README's table of results from records/.
results: setup-tour
	$(BIN)/python -m minimind_edu.course.results

setup-tour: $(VENV)/.installed-tour
setup-test: $(VENV)/.installed-test
setup-lab: $(VENV)/.installed-lab

# What each kind of use needs: the package with some of its extras.
$(VENV)/.installed-tour: EXTRAS =
$(VENV)/.installed-test: EXTRAS = [test]
$(VENV)/.installed-lab: EXTRAS = [lab]

$(VENV)/.installed-%: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed and was not found"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	# torch first: its pinned version decides what everything else may bring along
	$(BIN)/pip install --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/pip install --disable-pip-version-check --constraint constraints.txt --editable ".$(EXTRAS)"
	touch $@

clean:
	rm -rf out build
