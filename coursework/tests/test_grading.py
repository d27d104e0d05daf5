"""Grading is safe and fair: a hostile submission costs its own points, and the others are graded."""

import csv
import functools
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import nbformat
import pytest

from coursework import grade, sandbox, source

LIMITS = sandbox.Limits(cell_seconds=8, seconds=40, memory=3 * 2**29)
TASKS = [
    "cayley_table",
    "move",
    "turn_field",
    "bracelets",
    "equivariant_layers",
    "isotypic_projector",
    "shift_errors",
]
ALL = 34  # points of the tests; the answer in words has 6 more

# What stands in the cell of the task bracelets, 5 points, and the words that the log then has, if any.
HOSTILE = {
    "loops for ever": ("while True:\n    pass", "ran for more than 8 s"),
    "loops and cannot be interrupted": (
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
        "ran for more than 8 s",
    ),
    "loops in the function": ("def bracelets(n, q):\n    while True: pass", "ran for more than 8 s"),
    "allocates without end": ("x = []\nwhile True: x.append(bytearray(2**24))", None),
    "allocates in many processes": (
        "import os, time\nfor i in range(30):\n"
        "    if os.fork() == 0:\n        x = bytearray(2**27); time.sleep(60)\ntime.sleep(60)",
        "GiB of memory",
    ),
    "forks without end": (
        "import os\nwhile True:\n    os.fork()",
        "it ",
    ),  # by number or by memory, whichever is first
    "ends the kernel": ("import os\nos._exit(0)", "the kernel ended"),
    "kills everything": (
        "import os, signal\ntry: os.kill(-1, signal.SIGKILL)\nfinally: os.kill(os.getpid(), signal.SIGKILL)",
        "the kernel ended",
    ),
    "ends the kernel in the function": ("import os\ndef bracelets(n, q): os._exit(0)", "the kernel ended"),
    "raises SystemExit": ("raise SystemExit", None),
    "fills the disk": (
        "for i in range(100):\n    open(f'file{i}', 'wb').write(bytes(2**24))\nimport time; time.sleep(60)",
        "MiB of files",
    ),
    "prints without end": ("while True: print('x' * 10**6)", None),
    "changes nteq": ("import nteq.groups\nnteq.groups.cyclic = None\ndef bracelets(n, q): return 1", None),
    "changes numpy": (
        "np.allclose = lambda *a, **k: True\nnp.abs = lambda x: np.zeros(1)\nnp.isfinite = np.ones_like",
        None,
    ),
    "changes assert": (
        "import ast\nclass NoAssert(ast.NodeTransformer):\n"
        "    def visit_Assert(self, node): return ast.Pass()\n"
        "get_ipython().ast_transformers.append(NoAssert())\nexpect = lambda *a, **k: None",
        None,
    ),
    "is equal to everything": (
        "class Any(int):\n    __eq__ = lambda s, o: True\n    __ne__ = lambda s, o: False\n"
        "def bracelets(n, q): return Any()",
        None,
    ),
    "changes what carries its answers": (
        "import sys\nclass Yes:\n    def __call__(self, *a): return {'plain': True}\n"
        "sys.modules['nteq_inside'].encode = Yes()",
        None,
    ),
    "answers with nonsense": (
        "import sys\nfrom IPython.display import display\n"
        'text = \'[[[[{"array": ["|O", [9], ""]}\'\n'
        "def f(packed): display({'application/x-nteq-answer': text}, raw=True)\n"
        "sys.modules['nteq_inside'].answer = f",
        None,
    ),
    "opens a network connection": (
        "import socket\nsocket.create_connection(('127.0.0.1', PORT), timeout=3).send(b'here')",
        None,
    ),
    "shows a script": (
        "from IPython.display import HTML, Javascript, display\n"
        "display(HTML('<script>alert(1)</script><img src=x onerror=alert(2)>'), Javascript('alert(3)'))",
        None,
    ),
}
# these change what the student's kernel does, so the answers of later tasks may be lost with it
OWN_LOSS = {
    "allocates without end": 16,  # what they hold is missing later
    "prints without end": 16,
    "changes what carries its answers": 16,
    "answers with nonsense": 16,
}
SNOOP = r"""
import os
found = []
for top in ["/", HERE, HOME, os.path.dirname(HERE)]:
    for root, folders, files in os.walk(top):
        folders[:] = [f for f in folders if f not in ("dev", "proc", "sys", "usr", "lib", ".venv", ".pyenv")]
        for name in files:
            try: text = open(os.path.join(root, name), errors="replace").read(10**6)
            except OSError: continue
            if "BEGIN HIDDEN" + " TESTS" in text or "SECRET OF" + " BOB" in text:
                found.append(os.path.join(root, name))
print("FOUND", found)
print("COMMANDS", [open(f"/proc/{p}/cmdline").read() for p in os.listdir("/proc") if p.isdigit()])
print("VARIABLES", dict(os.environ))
for place in [HERE, HOME, "/", "/usr/lib", "/etc"]:
    try: open(os.path.join(place, "written-by-a-student"), "w").write("here")
    except OSError as error: print("REFUSED", place)
"""


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """All submissions graded in one run; a server listens where one of them would like to connect."""
    folder = tmp_path_factory.mktemp("course") / "submissions"
    heard = []
    server = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=lambda: heard.append(server.accept()), daemon=True).start()
    names = {"HERE": str(source.FOLDER), "HOME": str(Path.home()), "PORT": server.getsockname()[1]}
    codes = {name: code for name, (code, _) in HOSTILE.items()} | {"snoops": SNOOP}
    for name, code in {**codes, "ada": None, "bob": "# SECRET OF BOB\nraise ValueError('no idea')"}.items():
        notebook = source.read("ps1")
        for cell in notebook.cells:
            if code is not None and cell.metadata.nbgrader.grade_id == "bracelets":
                cell.source = (
                    "".join(f"{key} = {value!r}\n" for key, value in names.items() if key in code) + code
                )
        (folder / name.replace(" ", "-")).mkdir(parents=True)
        nbformat.write(notebook, folder / name.replace(" ", "-") / "ps1.ipynb")
    broken = folder / "broken" / "ps1.ipynb"
    broken.parent.mkdir()
    broken.write_text('{"cells": [')
    target = grade.grade(folder, limits=LIMITS, only=["ps1"])
    server.close()
    return target, heard


def points(target, student):
    with (target / "tasks.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["student"] == student]
    return {row["task"]: float(row["points"]) for row in rows}


def log(target, student):
    (line,) = [
        line for line in (target / "log.txt").read_text().splitlines() if line.startswith(f"{student} ps1: ")
    ]
    return line


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_submission_costs_its_own_points(graded, name):
    target, _ = graded
    student = name.replace(" ", "-")
    got = points(target, student)
    assert got["bracelets"] == 0
    assert sum(got.values()) >= ALL - 5 - OWN_LOSS.get(name, 0)
    assert sum(got[task] for task in TASKS[:3]) == 13  # what came before is kept
    if HOSTILE[name][1]:
        assert HOSTILE[name][1] in log(target, student)


def test_the_others_have_what_they_deserve(graded):
    target, _ = graded
    assert sum(points(target, "ada").values()) == ALL
    assert sum(points(target, "bob").values()) == ALL - 5
    assert log(target, "ada") == "ada ps1: ok"


def test_a_notebook_that_does_not_parse_is_reported(graded):
    target, _ = graded
    assert sum(points(target, "broken").values()) == 0
    assert "cannot be read" in log(target, "broken")


def test_nobody_heard_from_the_student(graded):
    assert graded[1] == []


def test_a_student_sees_no_hidden_test_and_no_other_submission(graded):
    target, _ = graded
    notebook = nbformat.read(target / "nbgrader" / "submitted" / "snoops" / "ps1" / "ps1.ipynb", as_version=4)
    (cell,) = [c for c in notebook.cells if c.metadata.get("nbgrader", {}).get("grade_id") == "bracelets"]
    text = "".join(output.get("text", "") for output in cell.outputs)
    assert "FOUND []" in text
    assert "coursework.execute" not in text and "SECRET" not in text
    assert text.count("REFUSED") == 5


def test_nothing_was_written_elsewhere():
    for place in [source.FOLDER, Path.home(), Path("/"), Path("/usr/lib"), Path("/etc")]:
        assert not (place / "written-by-a-student").exists()


def test_no_process_is_left(graded):
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert [line for line in listed.splitlines() if "bwrap" in line and "/submission-" in line] == []


def test_feedback_says_what_was_wrong_and_runs_no_script_of_the_student(graded):
    target, _ = graded
    page = (target / "feedback" / "shows-a-script" / "ps1.html").read_text()
    assert "alert(1)" in page  # as a quotation of the code
    assert "<script>alert" not in page and "<img src=x" not in page and "<script>alert(3)" not in page
    assert "bracelets is not there" in page
    assert "34.0" not in page.split("</h4>")[0] and "29.0 / 40.0" in page


def test_grades_and_summary_are_written(graded):
    target, _ = graded
    with (target / "grades.csv").open(newline="") as stream:
        rows = {row["student"]: row for row in csv.DictReader(stream)}
    assert len(rows) == len(HOSTILE) + 4
    assert (rows["ada"]["points"], rows["ada"]["still to grade by hand"]) == ("34", "6")
    assert (target / "summary.png").stat().st_size > 10_000


def test_points_given_by_hand_are_counted_and_kept(graded):
    target, _ = graded
    sheet = target / "rubric.csv"
    text = sheet.read_text()
    sheet.write_text(text.replace("ada,ps1,stride,,6,", "ada,ps1,stride,4.5,6,Which subgroup?"))
    done = (target / "nbgrader" / "submitted" / "ada" / "ps1" / "key.txt").stat().st_mtime
    grade.grade(target.with_name("submissions"), limits=LIMITS, only=["ps1"])
    assert points(target, "ada")["stride"] == 4.5
    page = (target / "feedback" / "ada" / "ps1.html").read_text()
    assert "38.5 / 40.0" in page and "Which subgroup?" in page
    assert (target / "nbgrader" / "submitted" / "ada" / "ps1" / "key.txt").stat().st_mtime == done
    assert "4.5,6,Which subgroup?" in sheet.read_text()


def test_points_that_are_no_points_are_refused(graded):
    target, _ = graded
    sheet = target / "rubric.csv"
    text = sheet.read_text()
    sheet.write_text(text.replace("bob,ps1,stride,,6,", "bob,ps1,stride,60,6,"))
    with pytest.raises(
        SystemExit, match="bob, ps1, stride has '60' points; expected was a number from 0 to 6"
    ):
        grade.grade(target.with_name("submissions"), limits=LIMITS, only=["ps1"])
    sheet.write_text(text)


def test_an_interrupted_run_goes_on(tmp_path, solved):
    for i in range(6):
        (tmp_path / "submissions" / f"student{i}").mkdir(parents=True)
        nbformat.write(solved(), tmp_path / "submissions" / f"student{i}" / "ps1.ipynb")
    command = [sys.executable, "-c", f"from pathlib import Path; from coursework import grade; "
               f"grade.grade(Path({str(tmp_path / 'submissions')!r}), only=['ps1'])"]  # fmt: skip
    keys = lambda: {
        p: p.stat().st_mtime_ns
        for p in (tmp_path / "submissions-graded" / "nbgrader" / "submitted").rglob("key.txt")
    }
    # where the tests themselves were started in the background they, and all they start, ignore SIGINT
    listens = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=listens
    )
    for _ in range(600):
        time.sleep(0.1)
        if len(keys()) >= 2:
            break
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 1
    first = keys()
    assert 2 <= len(first) < 6
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(keys()) == 6 and first.items() <= keys().items()
    assert (tmp_path / "submissions-graded" / "grades.csv").read_text().count(",34,40,6,") == 6
