"""The problem sets: released with `make assignments`, graded with `make grade`.

`source` reads a problem set from problems/, `release` makes what students, instructors and the grading get
from it; `collect` finds submissions in a folder, `execute` runs one in a `sandbox`, `grade` runs them all,
and `book` (in nbgrader's own environment) keeps the grades. The idea behind the grading: the student's code
runs in a kernel in the sandbox, the tests run outside it, and what passes between them is data.
"""
