# Each target sets up what it needs; `make help` lists them.
# Everything is called as `$(PY) -m tool`, so that a path with a space does no harm.

SHELL := /bin/sh
PY := .venv/bin/python
SPHINX_OPTIONS := -W -n --keep-going --all
UV = uv pip compile --universal --python-version 3.11 --no-annotate --no-header --quiet
UV_LOCK = $(UV) --group book --group test --no-emit-package tensorflow --no-emit-package tf2jax

.DEFAULT_GOAL := help
.PHONY: help setup book serve test test-slow test-faults test-browser test-colab assignments grade test-assignments test-variant test-matrix execute sync lint figures slides pdf subset bench bench-large lock vendor address clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed 's/:.*## /\t/' | sort | while IFS="$$(printf '\t')" read -r name what; do printf '  make %-12s %s\n' "$$name" "$$what"; done

setup: .venv/ready  ## the environment in .venv (TensorFlow-free, from requirements.txt)

.venv/ready: requirements.txt tools/setup.sh
	@sh tools/setup.sh .venv

book: .venv/ready  ## the whole book, from clean, warnings as errors
	@rm -rf _build
	$(PY) -c "from jupyter_book.cli.main import main; main()" build . $(SPHINX_OPTIONS) --quiet
	@rm -rf build  # or a file that was removed since would still be in the wheel
	@$(PY) -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir _build/html .
	@cp -R assignments/student _build/html/assignments
	@$(PY) -m tools.check_build _build/html
	@printf '\nThe book is in _build/html. To read it: make serve\n'

serve: .venv/ready  ## reads the built book at http://localhost:8000
	@test -f _build/html/index.html || { echo "No book here yet: run make book first."; exit 1; }
	$(PY) -m http.server 8000 --bind 127.0.0.1 --directory _build/html

test: .venv/ready lint  ## library, doctests, notebooks against stored outputs, pairing, style, spelling
	$(PY) -m pytest -q -m "not slow and not faults" -n 2
	$(PY) -m pytest -q --doctest-modules -n 2 nteq
	$(PY) -m tools.notebooks check
	$(PY) -m pytest -q -p nbval --nbval --nbval-cell-timeout 300 --dist loadscope -n 2 --override-ini addopts= --ignore notebooks/plain notebooks

test-slow: .venv/ready  ## the tests marked slow
	$(PY) -m pytest -q -m slow -n 2

test-faults: .venv/ready  ## long runs killed at random moments, on a full disk, in a read-only folder
	$(PY) -m pytest -q -m faults -s

test-browser: .venvs/browser/ready  ## the built book in Chromium: offline, formulas, sliders, phone, accessibility
	@test -f _build/html/index.html || { echo "No book here yet: run make book first."; exit 1; }
	.venvs/browser/bin/python -m pytest -q --override-ini addopts= --override-ini filterwarnings= -n 2 --dist loadscope browser_tests

test-colab: .venv/ready  ## every chapter in an environment like Colab's, Python 3.12 and 3.13, half an hour
	@test -f _build/html/index.html || { echo "No book here yet: run make book first."; exit 1; }
	$(PY) -m tools.colab

slides: .venv/ready  ## the deck of the lecture, _build/html/slides/index.html, from the tagged cells
	$(PY) -m tools.slides

pdf: .venvs/browser/ready  ## the whole book as _build/html/symmetries-ntk.pdf, printed by Chromium from the built pages
	.venvs/browser/bin/python -m tools.pdf

.venvs/browser/ready: requirements-browser.txt tools/setup.sh
	@sh tools/setup.sh .venvs/browser requirements-browser.txt

assignments: .venv/ready .venvs/nbgrader/ready  ## the problem sets for students and instructors (or make assignments VARIANT=2027)
	$(PY) -m tools.coursework.release $(if $(VARIANT),--variant $(VARIANT))

grade: .venv/ready .venvs/nbgrader/ready  ## grades a folder of submissions: make grade DIR=submissions
	$(PY) -m tools.coursework.grade $(if $(DIR),"$(DIR)") $(if $(VARIANT),--variant $(VARIANT)) $(if $(UNSAFE),--unsafe)

test-assignments: .venv/ready .venvs/nbgrader/ready  ## every task against right and wrong answers, the grading against hostile ones
	$(PY) -m pytest -q --override-ini filterwarnings= -n 2 --dist loadscope -m "not variant" coursework_tests

test-variant: .venv/ready  ## the answers to a problem set for another variant (all sets, or make test-variant NAME=ps2)
	$(PY) -m pytest -q --override-ini filterwarnings= -n 2 --dist loadscope -m variant $(if $(NAME),-k "$(NAME)") coursework_tests/test_answers.py

.venvs/nbgrader/ready: requirements-nbgrader.txt tools/setup.sh
	@sh tools/setup.sh .venvs/nbgrader requirements-nbgrader.txt

test-matrix:  ## the library's tests on every supported Python found here
	@sh tools/test_matrix.sh

sync: .venv/ready  ## stores changes in the prose of chapters alone, without running them
	$(PY) -m tools.notebooks sync $(NOTEBOOK)

lint: .venv/ready  ## style, format (ruff) and spelling (codespell)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m codespell_lib

execute: .venv/ready  ## syncs, runs and stores every notebook (or make execute NOTEBOOK=08)
	$(PY) -m tools.notebooks execute $(NOTEBOOK)

figures: .venv/ready  ## the figure of the first page (book/_assets/claim.png)
	$(PY) -m tools.claim_figure

subset: .venv/ready  ## the part of Fashion-MNIST that ships with nteq
	$(PY) -m tools.fashion_mnist_subset

bench: .venv/ready  ## the book's page on performance, about two minutes
	$(PY) -m tools.bench

bench-large: .venv/ready  ## adds a prediction from 10,000 lattices to that page
	$(PY) -m tools.bench large

lock:  ## the three requirements*.txt from pyproject.toml (needs uv on the PATH)
	@{ sed -n '/^#/p' requirements.txt; $(UV_LOCK) pyproject.toml; echo '--editable .'; } > requirements.new
	@mv requirements.new requirements.txt
	@$(UV) --group browser > requirements.new
	@mv requirements.new requirements-browser.txt
	@$(UV) --group nbgrader > requirements.new
	@mv requirements.new requirements-nbgrader.txt

vendor: .venv/ready  ## the JavaScript of the pages, from pinned npm packages (needs npm)
	$(PY) -m tools.vendor

address: .venv/ready  ## brings README, citation and set-up cells in step with the addresses in _config.yml
	$(PY) -m tools.address

clean:  ## what the targets above made, the environment included
	rm -rf .venv .venvs _build assignments/build
