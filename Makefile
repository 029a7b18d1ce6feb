# Needs Python 3.11 or later with pip, and make. Everything else goes into .venv and build/.
PYTHON ?= python3
export TMPDIR := $(CURDIR)/build/tmp
export RUFF_CACHE_DIR := $(CURDIR)/build/ruff
export UV_PYTHON_DOWNLOADS := never
CONSOLE := {{cookiecutter.project_slug}}/app/console/static
BIOME := XDG_CACHE_HOME='$(CURDIR)/build/cache' .venv/bin/biome

.DEFAULT_GOAL := help
.PHONY: help demo screenshots test watch check fix mutation bench clean

help: ## show this list
	@grep -E '^[a-z]+: .*##' Makefile | sed 's/:.*##/\t/' | expand -t 12

demo: .venv/complete | build/tmp ## bake a project, start it, send it a request with a key, stop it; DEMO=stay keeps it up, with data for the console
	.venv/bin/python -m tests.demo

screenshots: .venv/complete | build/tmp ## make the pictures of the console in the READMEs again
	.venv/bin/python -m tests.screenshots

test: .venv/complete | build/tmp ## bake every option and run what was baked; TEST_DATABASE_URL=postgresql://… adds PostgreSQL
	.venv/bin/pytest -n auto --dist worksteal

watch: .venv/complete | build/tmp ## bake again at every save, and run the tests that the change touches
	.venv/bin/python -m tests.watch

check: .venv/complete ## lint and types
	.venv/bin/ruff check && .venv/bin/ruff format --check && .venv/bin/mypy
	$(BIOME) check --error-on-warnings '$(CONSOLE)'

fix: .venv/complete ## let ruff and biome repair and format
	.venv/bin/ruff check --fix && .venv/bin/ruff format
	$(BIOME) check --write '$(CONSOLE)'

mutation: .venv/complete | build/tmp ## check that a project's tests reach all of it, and fail when it is broken; MUTATION="--seed 20261126" repeats a draw
	.venv/bin/python -m tests.mutation $(MUTATION)

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
