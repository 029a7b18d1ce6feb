# Needs Python 3.11 or later with pip, and make. Everything else goes into .venv and build/.
PYTHON ?= python3
export TMPDIR := $(CURDIR)/build/tmp
export RUFF_CACHE_DIR := $(CURDIR)/build/ruff
export UV_PYTHON_DOWNLOADS := never

.DEFAULT_GOAL := help
.PHONY: help demo test watch check fix bite bench clean

help: ## show this list
	@grep -E '^[a-z]+: .*##' Makefile | sed 's/:.*##/\t/' | expand -t 12

demo: .venv/complete | build/tmp ## bake a project, start it, send it a request with a key, stop it
	.venv/bin/python -m tests.demo

test: .venv/complete | build/tmp ## bake every option and run what was baked; TEST_DATABASE_URL=postgresql://… adds PostgreSQL
	.venv/bin/pytest -n auto --dist worksteal

watch: .venv/complete | build/tmp ## bake again at every save, and run the tests that the change touches
	.venv/bin/python -m tests.watch

check: .venv/complete ## lint and types
	.venv/bin/ruff check && .venv/bin/ruff format --check && .venv/bin/mypy

fix: .venv/complete ## let ruff repair and format
	.venv/bin/ruff check --fix && .venv/bin/ruff format

bite: .venv/complete | build/tmp ## see that a baked project's tests reach all of it, and fail when it is broken on purpose
	.venv/bin/python -m tests.bite

bench: .venv/complete | build/tmp ## what authentication costs, and what it costs others; TEST_DATABASE_URL=postgresql://… adds PostgreSQL
	.venv/bin/python -m tests.bench $(BENCH)

clean: ## remove everything that the other targets made
	rm -rf build .venv uv.lock .mypy_cache .pytest_cache .ruff_cache

# Written last, so that an interrupted installation is repeated the next time.
.venv/complete: pyproject.toml | build/tmp
	@test -e $@ || rm -rf .venv
	$(PYTHON) -m venv .venv && .venv/bin/python -m pip install --quiet uv && .venv/bin/python -m uv sync --quiet && touch $@

build/tmp:
	mkdir -p build/tmp
