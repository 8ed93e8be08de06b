# Works in .venv of the checkout. PYTHON chooses the interpreter the environment is made with (3.11 or later).
PYTHON ?= $(or $(shell command -v python3.11 2>/dev/null),python3)
BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: install demo test lint bench clean

install: $(INSTALLED)

# torch goes first: with the pinned build in place, no other package's looser request can bring another one.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all,dev]'
	touch $@

demo: $(INSTALLED)
	$(BIN)/tilth demo

lint: $(INSTALLED)
	$(BIN)/ruff check --quiet
	$(BIN)/ruff format --check --quiet
	$(BIN)/pyright
	$(BIN)/lint-imports --no-cache

# Two processes of one thread: the tests are small, and two threads that wait for each other are slower than one.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest --quiet --numprocesses 2 --dist worksteal -m 'not slow'

# Each command writes one table to benchmarks/results; what runs for hours is left to be run by hand. TEXTS: real data.
TEXTS ?= ../shared/data/text
bench: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python benchmarks/throughput.py $(TEXTS)/english_novels/corpus.tar.zst
	$(BIN)/python benchmarks/tiny_shakespeare.py $(TEXTS)/tinyshakespeare/input.txt
	$(BIN)/python benchmarks/deduplication.py $(TEXTS)/..
	$(BIN)/python benchmarks/extraction.py $(TEXTS)/../web/ground_truth
	$(BIN)/python benchmarks/generation.py
	$(BIN)/python benchmarks/attention.py
	$(BIN)/python benchmarks/cpu_bfloat16.py
	$(BIN)/python benchmarks/filters.py $(TEXTS)/..
	$(BIN)/python benchmarks/muon.py
	$(BIN)/python benchmarks/planted_faults.py
	$(BIN)/python benchmarks/save_stall.py
	$(BIN)/python benchmarks/tokenizer.py $(TEXTS)/..
	$(BIN)/python benchmarks/wikipedia.py $(TEXTS)/../wikipedia
	$(BIN)/python benchmarks/packing.py $(TEXTS)/..
	$(BIN)/python benchmarks/loading.py $(TEXTS)/..
	$(BIN)/python benchmarks/finetuning.py $(TEXTS)/..
	$(BIN)/python benchmarks/roofline.py

clean:
	rm -rf .venv build dist .pytest_cache .ruff_cache .import_linter_cache .hypothesis
