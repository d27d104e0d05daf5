"""Fetches the JavaScript that the pages need into book/_assets/vendor: `make vendor`.

The pages load nothing from other hosts, so MathJax and its fonts are stored with the book. The files come
from npm packages pinned by version and checksum; needs npm on the PATH.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

from tools import places

VENDOR = places.ROOT / "book" / "_assets" / "vendor"


class Package(NamedTuple):
    """One npm package: what it is, and which of its files go where (pattern → replacement)."""

    name: str
    version: str
    licence: str
    sha256: str
    purpose: str
    files: dict[str, str]


PACKAGES = [
    Package(
        "mathjax",
        "3.2.2",
        "Apache-2.0",
        "1b9c0a1c44df864e915690558e72adb9cc5203360daefd385084ced3b6c64c09",
        "typesets the formulas; with its fonts and what it loads on demand (TeX extensions, and the speech "
        "rules in English that its accessibility menu uses)",
        {
            r"LICENSE": r"mathjax/LICENSE",
            r"es5/(tex-mml-chtml\.js)": r"mathjax/\1",
            r"es5/(output/chtml/fonts/woff-v2/.+)": r"mathjax/\1",
            r"es5/(input/tex/extensions/.+)": r"mathjax/\1",
            r"es5/(a11y/(?:assistive-mml|complexity|explorer|semantic-enrich|sre)\.js)": r"mathjax/\1",
            r"es5/(sre/mathmaps/(?:base|en)\.json)": r"mathjax/\1",
        },
    ),
    Package(
        "reveal.js",
        "5.2.1",
        "MIT",
        "359b575dd51bbda32f89b2fd4c7dc46ad7389a805572158916c29252f7a27333",
        "shows the slides (tools/site/slides.py)",
        {r"LICENSE": r"reveal/LICENSE", r"dist/(reset\.css|reveal\.css|reveal\.js)": r"reveal/\1"},
    ),
]


def fetch(package: Package, folder: Path) -> Path:
    """The package's archive, after its checksum was compared."""
    spec = f"{package.name}@{package.version}"
    packed = subprocess.run(
        ["npm", "pack", "--silent", spec], cwd=folder, check=True, capture_output=True, text=True
    )
    archive = folder / packed.stdout.split()[-1]
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != package.sha256:
        raise SystemExit(
            f"{spec}: the archive's sha256 is {found}, tools/site/vendor.py pins {package.sha256}. If you "
            "meant to change the version, check the new archive and pin its checksum."
        )
    return archive


def extract(package: Package, archive: Path, target: Path) -> int:
    """Copies the wanted files into the target folder; every pattern must match one."""
    unmatched, copied = set(package.files), 0
    with tarfile.open(archive) as tar:
        for member in tar.getmembers():
            path = member.name.removeprefix("package/")
            for pattern, replacement in package.files.items():
                match = re.fullmatch(pattern, path)
                if match and member.isfile():
                    destination = target / match.expand(replacement)
                    destination.parent.mkdir(parents=True, exist_ok=True)
                    destination.write_bytes(tar.extractfile(member).read())
                    unmatched.discard(pattern)
                    copied += 1
    if unmatched:
        raise SystemExit(f"{package.name} {package.version} holds no file that matches {sorted(unmatched)}.")
    return copied


def main() -> None:
    """Replaces the vendor folder by a fresh one."""
    if not shutil.which("npm"):
        raise SystemExit("make vendor needs npm on the PATH: on Debian and Ubuntu, apt install npm.")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / "vendor"
        for package in PACKAGES:
            count = extract(package, fetch(package, Path(folder)), fresh)
            rows.append(
                f"| {package.name} | {package.version} | {package.licence} | {package.purpose} "
                f"| `{package.sha256}` |"
            )
            print(f"{package.name} {package.version}: {count} files")
        (fresh / "VENDORED.md").write_text(
            "# Third-party files in this folder\n\n"
            "Unmodified, made by `make vendor` (`tools/site/vendor.py`); edit there, not here.\n\n"
            "| npm package | version | licence | what for | sha256 of the archive |\n|---|---|---|---|---|\n"
            + "\n".join(rows)
            + "\n",
            encoding="utf-8",
        )
        shutil.rmtree(VENDOR, ignore_errors=True)
        shutil.copytree(fresh, VENDOR)
    print(f"in {VENDOR.relative_to(Path.cwd()) if VENDOR.is_relative_to(Path.cwd()) else VENDOR}")


if __name__ == "__main__":
    sys.exit(main())
