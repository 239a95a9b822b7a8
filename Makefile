# All targets run in .venv and create it if it is missing.
#   make demo    encode and decode a photograph (PHOTO=mine.png chooses another)
#   make test    ruff, mypy, import-linter and all tests
#   make quick   the tests without the slow ones
#   make lint    ruff, mypy and import-linter
#   make format  ruff's fixes and formatting
#   make docs    the documents as a site in build/site/
#   make web     the decoder for browsers: npm ci, lint, tests, and the page in web/dist/
#   make study   the experiments of docs/lecture.md (STUDY="models levels" chooses, DATA=FOLDER)
#   make clean   remove .venv, demo/ and what make docs and make web made

PYTHON ?= python3
# Extra arguments for pip, for example an index with CPU-only builds of torch.
PIP_ARGS ?=
PHOTO ?= $(firstword $(sort $(wildcard examples/*.png)))
QUALITY ?= 75
# One process a core; the tests of a file share what they set up.
PYTEST_ARGS ?= -n auto --dist loadfile

STUDY ?= models codebooks levels gradients generation factors symbols
DATA ?= /usr/share/datasets/fashion-mnist

BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt
NAME = demo/$(basename $(notdir $(PHOTO)))

.DELETE_ON_ERROR:
.PHONY: demo test quick lint format docs web study clean

demo: .venv/run
	@mkdir -p demo
	$(BIN)/vqcodec encode "$(PHOTO)" -o "$(NAME).vq" -q $(QUALITY) -f --psnr
	$(BIN)/vqcodec info "$(NAME).vq"
	$(BIN)/vqcodec decode "$(NAME).vq" -o "$(NAME).png" -f

test: lint
	$(BIN)/python -m pytest -m "" $(PYTEST_ARGS)

quick: .venv/dev
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache

format: .venv/dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/dev
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going -c docs -d build/doctrees . build/site
	@echo build/site/index.html

web: web/node_modules
	cd web && npm run lint && npm test && npm run build

study: .venv/dev
	for name in $(STUDY); do VQCODEC_STUDY_DATA="$(DATA)" $(BIN)/python -m benchmarks.study.$$name || exit 1; done
	$(BIN)/python -m benchmarks.study.findings

clean:
	rm -rf .venv build demo web/node_modules web/build web/dist

web/node_modules: web/package.json web/package-lock.json
	cd web && npm ci
	@touch $@

.venv/python:
	$(PYTHON) -m venv .venv
	@touch $@

.venv/run: .venv/python pyproject.toml constraints.txt
	$(PIP) -e .
	@touch $@

.venv/dev: .venv/python pyproject.toml constraints.txt
	$(PIP) -e ".[dev,bench,docs,study]"
	@touch $@
