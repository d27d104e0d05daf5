"""What a clone has to be: free of circles, the same bytes everywhere, fit to publish itself."""

import ast
import os
import shutil
import subprocess

import pytest

from tools import places

PACKAGES = ["nteq", "tools", "coursework", "benchmarks", "experiments"]


def git(*arguments, at=places.ROOT):
    return subprocess.run(["git", *arguments], cwd=at, check=True, capture_output=True, text=True).stdout


def arrows():
    """Module → the modules of this repository that it imports, at its top or later."""
    files = [path for package in PACKAGES for path in (places.ROOT / package).rglob("*.py")]
    names = {
        ".".join(path.relative_to(places.ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in files
        if not {"tests", "problems", "build"} & set(path.parts)
    }
    found = {}
    for name, path in names.items():
        asked = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                asked |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                whole = [f"{node.module}.{alias.name}" for alias in node.names]
                asked |= {module if module in names else node.module for module in whole}
        found[name] = asked & names.keys() - {name}
    return found


def circle(found):
    """Modules that import each other in turn; empty if there are none."""
    left = dict(found)
    while free := [name for name, needs in left.items() if not needs & left.keys()]:
        for name in free:
            del left[name]
    return sorted(left)


def test_no_modules_import_each_other_in_a_circle():
    assert circle(arrows()) == []
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["a", "b", "c"]


def test_the_library_imports_nothing_of_the_book_and_the_book_nothing_of_what_is_made_of_its_pages():
    found = arrows()
    assert len(found) > 40
    for name, needs in found.items():
        package = name.split(".")[0]
        if package == "nteq":
            assert all(other.startswith("nteq") for other in needs), name
        if name.startswith(("tools.book", "coursework", "benchmarks", "experiments")):
            assert not [other for other in needs if other.startswith("tools.site")], name
        if name.startswith("tools.book"):
            assert not [other for other in needs if other.startswith("coursework")], name


@pytest.mark.skipif(not (places.ROOT / ".git").exists(), reason="not a clone")
def test_a_clone_with_windows_line_ends_has_the_same_bytes(tmp_path):
    git("clone", "--quiet", "--shared", "-c", "core.autocrlf=true", str(places.ROOT), str(tmp_path / "clone"))
    listed = git("ls-files", at=tmp_path / "clone").splitlines()
    scripts = [
        name for name in listed if name.endswith((".sh", "Makefile", "postBuild")) or name == ".ci/run"
    ]
    assert {"Makefile", ".ci/run", "tools/setup.sh", ".binder/postBuild"} <= set(scripts)
    for name in listed:
        if not name.endswith((".npz", ".png", ".woff")):
            assert b"\r\n" not in (tmp_path / "clone" / name).read_bytes(), name
    for name in set(scripts) - {"Makefile", ".ci/run"}:
        subprocess.run(["sh", "-n", tmp_path / "clone" / name], check=True)


def test_the_pages_are_published_on_their_branch_as_one_commit(tmp_path):
    (tmp_path / "tools" / "site").mkdir(parents=True)
    (tmp_path / "_build" / "html" / "_static").mkdir(parents=True)
    shutil.copy(places.ROOT / "tools" / "site" / "publish.sh", tmp_path / "tools" / "site")
    shutil.copy(places.ROOT / "_config.yml", tmp_path)
    git("init", "--quiet", "--bare", "pages.git", at=tmp_path)
    git("init", "--quiet", at=tmp_path)
    (tmp_path / ".git" / "info" / "exclude").write_text("_build\n*.css\n")
    git("remote", "add", "origin", str(tmp_path / "pages.git"), at=tmp_path)
    git("config", "user.name", "Ada", at=tmp_path)
    git("config", "user.email", "ada@ada.example", at=tmp_path)
    git("add", "_config.yml", at=tmp_path)
    git("commit", "--quiet", "-m", "one", at=tmp_path)
    publish = ["sh", tmp_path / "tools" / "site" / "publish.sh"]
    refused = subprocess.run(publish, capture_output=True, text=True)
    assert refused.returncode == 1 and "run make book first" in refused.stderr
    built = {"index.html", ".nojekyll", "_static/book.css"}
    for name in built:
        (tmp_path / "_build" / "html" / name).write_text(name)
    for content in ("first", "second"):
        (tmp_path / "_build" / "html" / "index.html").write_text(content)
        subprocess.run(publish, check=True, capture_output=True)
        published = git("ls-tree", "-r", "--name-only", places.branch(), at=tmp_path / "pages.git")
        assert set(published.splitlines()) == built
        assert git("rev-list", "--count", places.branch(), at=tmp_path / "pages.git") == "1\n"
        assert git("show", f"{places.branch()}:index.html", at=tmp_path / "pages.git") == content
    assert git("status", "--porcelain", "--untracked-files=no", at=tmp_path) == ""


@pytest.mark.parametrize("pages", [True, False], ids=["beside the pages", "on main"])
def test_binder_installs_the_lock_and_the_library_that_its_branch_has(tmp_path, pages):
    lock = (places.ROOT / "requirements.txt").read_text()
    (tmp_path / "requirements.txt").write_text(lock)
    (tmp_path / ("nteq-1.0-py3-none-any.whl" if pages else "pyproject.toml")).touch()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "pip").write_text('#!/bin/sh\nprintf "%s " "$@" > asked\n')
    (tmp_path / "bin" / "pip").chmod(0o755)
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    script = places.ROOT / ".binder" / "postBuild"
    subprocess.run(["sh", script], cwd=tmp_path, env={**os.environ, "PATH": path}, check=True)
    asked, kept = (tmp_path / "asked").read_text(), (tmp_path / "requirements.txt").read_text()
    assert "--no-deps -r requirements.txt" in asked and ("nteq-1.0-py3-none-any.whl" in asked) == pages
    assert ("--editable ." in kept) == (not pages and "--editable ." in lock)
    assert kept.replace("--editable .\n", "") == lock.replace("--editable .\n", "")
