# Each target sets up what it needs; `make help` lists them.
# Everything is called as `$(PY) -m tool`, so that a path with a space does no harm.

SHELL := /bin/sh
PY := .venv/bin/python
SPHINX_OPTIONS := -W -n --keep-going --all
UV = uv pip compile --universal --python-version 3.11 --no-annotate --no-header --quiet
UV_LOCK = $(UV) --extra book --extra stax --group build --group test --no-emit-package tensorflow --no-emit-package tf2jax

.DEFAULT_GOAL := help
.PHONY: help setup book serve test test-chapters test-slow test-faults test-browser test-colab assignments grade test-assignments test-variant test-matrix test-install test-gpu execute sync lint figures slides pdf publish subset bench bench-large lock vendor address clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed 's/:.*## /\t/' | sort | while IFS="$$(printf '\t')" read -r name what; do printf '  make %-16s %s\n' "$$name" "$$what"; done

setup: .venv/ready  ## the environment in .venv (TensorFlow-free, from requirements.txt)

.venv/ready: requirements.txt tools/setup.sh
	@sh tools/setup.sh .venv

book: .venv/ready  ## the whole book, from clean, warnings as errors
	@rm -rf _build
	$(PY) -c "from jupyter_book.cli.main import main; main()" build . $(SPHINX_OPTIONS) --quiet
	@rm -rf build  # or a file that was removed since would still be in the wheel
	@$(PY) -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir _build/html .
	@$(PY) -m tools.site.launch
	@$(PY) -m tools.site.check _build/html
	@printf '\nThe book is in _build/html. To read it: make serve\n'

serve: .venv/ready  ## reads the built book at http://localhost:8000
	@test -f _build/html/index.html || { echo "No book here yet: run make book first."; exit 1; }
	$(PY) -m http.server 8000 --bind 127.0.0.1 --directory _build/html

test: .venv/ready lint  ## library, doctests, what is stored of the chapters, style, types, spelling
	$(PY) -m pytest -q -m "not slow and not faults" -n 2
	$(PY) -m pytest -q --doctest-modules -n 2 nteq
	$(PY) -m tools.book.notebooks check

test-chapters: .venv/ready  ## every chapter run, and compared with its stored outputs (or make test-chapters NOTEBOOK=ising)
	$(PY) -m pytest -q -p nbval --nbval --nbval-cell-timeout 300 --dist loadscope -n 2 --override-ini addopts= notebooks$(if $(NOTEBOOK),/$(NOTEBOOK).ipynb)

test-slow: .venv/ready  ## the tests marked slow
	$(PY) -m pytest -q -m slow -n 2

test-faults: .venv/ready  ## long runs killed at random moments, on a full disk, in a read-only folder
	$(PY) -m pytest -q -m faults -s

test-browser: .venvs/browser/ready slides  ## the built book and its slides in Chromium: offline, formulas, sliders, phone, accessibility
	.venvs/browser/bin/python -m pytest -q --override-ini addopts= --override-ini filterwarnings= -n 2 --dist loadscope tests/browser

test-colab: .venv/ready  ## every chapter in an environment like Colab's, Python 3.12 and 3.13, half an hour
	@test -f _build/html/index.html || { echo "No book here yet: run make book first."; exit 1; }
	$(PY) -m tools.site.colab

publish:  ## the built book on the branch of origin that serves the pages
	@sh tools/site/publish.sh

slides: .venv/ready  ## the deck of the lecture, _build/html/slides/index.html, from the tagged cells
	$(PY) -m tools.site.slides

pdf: .venvs/browser/ready  ## the whole book as _build/html/symmetries-ntk.pdf, printed by Chromium from the built pages
	.venvs/browser/bin/python -m tools.site.pdf

.venvs/browser/ready: requirements-browser.txt tools/setup.sh
	@sh tools/setup.sh .venvs/browser requirements-browser.txt

assignments: .venv/ready .venvs/nbgrader/ready  ## the problem sets for students and instructors (or make assignments VARIANT=2027)
	$(PY) -m coursework.release $(if $(VARIANT),--variant $(VARIANT))

grade: .venv/ready .venvs/nbgrader/ready  ## grades a folder of submissions: make grade DIR=submissions
	$(PY) -m coursework.grade $(if $(DIR),"$(DIR)") $(if $(VARIANT),--variant $(VARIANT)) $(if $(UNSAFE),--unsafe)

test-assignments: .venv/ready .venvs/nbgrader/ready  ## every task against right and wrong answers, the grading against hostile ones
	$(PY) -m pytest -q --override-ini filterwarnings= -n 2 --dist loadscope -m "not variant" coursework/tests

test-variant: .venv/ready  ## the answers to a problem set for another variant (all sets, or make test-variant NAME=ps2)
	$(PY) -m pytest -q --override-ini filterwarnings= -n 2 --dist loadscope -m variant $(if $(NAME),-k "$(NAME)") coursework/tests/test_answers.py

.venvs/nbgrader/ready: requirements-nbgrader.txt tools/setup.sh
	@sh tools/setup.sh .venvs/nbgrader requirements-nbgrader.txt

test-matrix:  ## the tests of `make test` on every supported Python found here
	@sh tools/test_matrix.sh

test-gpu:  ## the library in float32 and float64 on the first GPU, if there is one (make test-gpu PY=python of an environment with JAX for it)
	@$(PY) -c "import jax; jax.devices('gpu')" 2>/dev/null || { echo "JAX finds no GPU here, so nothing was run."; exit 0; }; \
	NTEQ_TEST_PLATFORM=gpu $(PY) -m pytest -q tests/library/test_precision.py && \
	$(PY) -m pytest -q -m "not slow and not faults" --ignore tests/library/test_compat.py --ignore tests/library/test_experiments.py tests/library

test-install:  ## the library alone in a fresh environment, on every supported Python found here
	@sh tools/test_install.sh

sync: .venv/ready  ## stores changes in the prose of chapters alone, without running them
	$(PY) -m tools.book.notebooks sync $(NOTEBOOK)

lint: .venv/ready  ## style, format (ruff), types of nteq (mypy) and spelling (codespell)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m codespell_lib

execute: .venv/ready  ## syncs, runs and stores every notebook (or make execute NOTEBOOK=ising)
	$(PY) -m tools.book.notebooks execute $(NOTEBOOK)

figures: .venv/ready  ## the figure of the first page (book/_assets/claim.png)
	$(PY) -m experiments.front_page

subset: .venv/ready  ## the part of Fashion-MNIST that ships with nteq
	$(PY) -m experiments.fashion_mnist_subset

bench: .venv/ready  ## the book's page on performance, about two minutes
	$(PY) -m benchmarks.bench

bench-large: .venv/ready  ## adds a prediction from 10,000 lattices to that page
	$(PY) -m benchmarks.bench large

lock:  ## the three requirements*.txt from pyproject.toml (needs uv on the PATH)
	@{ sed -n '/^#/p' requirements.txt; $(UV_LOCK) pyproject.toml; echo '--editable .'; } > requirements.new
	@mv requirements.new requirements.txt
	@$(UV) --group browser > requirements.new
	@mv requirements.new requirements-browser.txt
	@$(UV) --group nbgrader > requirements.new
	@mv requirements.new requirements-nbgrader.txt

vendor: .venv/ready  ## the JavaScript of the pages, from pinned npm packages (needs npm)
	$(PY) -m tools.site.vendor

address: .venv/ready  ## brings README, citation and set-up cells in step with the addresses in _config.yml
	$(PY) -m tools.site.address

clean:  ## what the targets above made, the environment included
	rm -rf .venv .venvs _build coursework/build
