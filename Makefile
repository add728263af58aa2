# make tour       sets up, then trains a model that talks
# make test       sets up, then runs every test, the chapters among them
# make test-lab   sets up, then opens every chapter in JupyterLab in a browser (Chromium), runs it and moves its widgets
# make lab        sets up, then opens JupyterLab on chapters/
# make chapters   executes the chapters anew from chapters/source/

# The first Python of a supported version; name another with `make PYTHON=/path/to/python tour`.
PYTHON ?= $(shell for name in python3 python3.12 python3.13 python3.11; do \
	$$name -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$name && break; done)
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: tour test test-package test-chapters test-lab lab chapters figures data results setup-tour setup-test setup-lab clean

tour: setup-tour
	$(BIN)/minimind-edu tour

test: test-package test-chapters

test-package: setup-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pytest

# Executes every chapter and compares its outputs with the stored ones.
test-chapters: setup-test
	$(BIN)/pytest --nbval --nbval-current-env --nbval-cell-timeout=600 \
		--nbval-sanitize-with=tests/nbval.cfg chapters/

# Chapters in a real JupyterLab; what the browser saw is kept in out/screenshots/. It runs every chapter, as
# test-chapters has just done, and would make `make test` nearly twice as long: .ci/run calls it after that.
test-lab: setup-test
	$(BIN)/pytest -m lab -rs tests/lab

# The whole repository is served, since the chapters show pictures from figures/.
lab: setup-lab
	$(BIN)/jupyter lab --LabApp.default_url=/lab/tree/chapters/01_tokenizer.ipynb

chapters: setup-lab
	$(BIN)/minimind-edu course build
	$(BIN)/python -m minimind_edu.course.results

# Draws the pictures in figures/ anew; they do not change unless their scripts do.
figures: setup-lab
	$(BIN)/python -m minimind_edu.course.draw

# Rebuilds the embedded data; the files in datasets/ do not change unless the world does.
data: setup-tour
	$(BIN)/minimind-edu data build

# Writes the README's tables of results from records/.
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
