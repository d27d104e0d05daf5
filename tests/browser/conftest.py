"""The built book on a local server, and a browser to read it with: `make test-browser`."""

import re
import shutil

import pytest
from playwright.sync_api import sync_playwright
from xdist.scheduler import LoadScopeScheduling

from tools import places
from tools.site.server import serve

BOOK = places.BUILT
NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]


def pytest_configure(config):
    if not (BOOK / "index.html").exists():
        pytest.exit("There is no book in _build/html: run make book first.", returncode=2)
    if not any(map(shutil.which, NAMES)):
        pytest.exit(
            "These tests need Chromium and found none of " + ", ".join(NAMES) + " on the PATH. "
            "On Debian and Ubuntu: apt install chromium.",
            returncode=2,
        )


class _ByPage(LoadScopeScheduling):
    """A page's tests run in one process, one after the other on one load.

    xdist_group would say so, too, but is without effect, and without a word, on pytest 9.2.
    """

    def _split_scope(self, nodeid):
        page = re.search(r"::\w+\[(.+?\.html)", nodeid)
        return page[1] if page else nodeid


def pytest_xdist_make_scheduler(config, log):
    return _ByPage(config, log)


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The address of the book, under a path of its own as on a university's server."""
    root = tmp_path_factory.mktemp("server")
    (root / "courses").mkdir()
    (root / "courses" / "ntk").symlink_to(BOOK, target_is_directory=True)
    with serve(root) as address:
        yield address + "courses/ntk/"


@pytest.fixture(scope="session")
def browser():
    path = next(filter(None, map(shutil.which, NAMES)))
    with sync_playwright() as playwright:
        # containers have no sandbox of their own for it and little shared memory
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()
