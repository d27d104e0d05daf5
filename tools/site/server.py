"""Serves a folder on this machine while a test or a tool reads it. Standard library only."""

from __future__ import annotations

import contextlib
import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


class _Server(http.server.ThreadingHTTPServer):
    request_queue_size = 64  # a page asks for dozens of files at once


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[str]:
    """The address of a server of this folder, with a slash at its end."""
    with _Server(("127.0.0.1", 0), functools.partial(_Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
