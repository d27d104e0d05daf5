"""A folder of finished members: what `nteq.ensembles.run` keeps of a long run, so that it can go on."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

# of all that a configuration says, what differs whenever something else of this does
PROGRAM = "program (network, loss, optimizer, augmentation)"


class Store:
    """A folder of finished chunks, each named by its first and last member and the SHA-256 of its bytes."""

    def __init__(self, folder: Path, configuration: dict[str, str]) -> None:
        self.folder, self.configuration = folder, configuration

    def open(self, resume: bool) -> dict[int, np.ndarray]:
        """The predictions that are there already."""
        path = self.folder / "configuration.json"
        before = None
        if path.exists() or list(self.folder.glob("members-*.npz")):
            try:
                before = dict(json.loads(path.read_text()))
            except (ValueError, TypeError, FileNotFoundError) as error:
                raise ValueError(
                    f"run: {path} is damaged or missing, so nothing says what made the chunks beside it. "
                    "Choose another folder."
                ) from error
            if not resume:
                raise FileExistsError(
                    f"run: {self.folder} holds a run already. Go on with it by resume=True, or choose "
                    "another folder."
                )
            now = self.configuration
            apart = [name for name in now if before.get(name) != now[name]]
            if apart:  # the program differs whenever something else does
                named = [name for name in apart if name != PROGRAM] or apart
                raise ValueError(
                    f"run: {self.folder} holds a run of another configuration and cannot be resumed:\n"
                    + "\n".join(f"  {n}: {before.get(n, 'nothing')} there, {now[n]} now" for n in named)
                )
        wait_for_all("nteq: every process has read the configuration")
        if jax.process_index() == 0:
            for torn in self.folder.glob(".*.part"):  # what a killed run was writing
                torn.unlink(missing_ok=True)
            if before is None:
                self._write("configuration.json", json.dumps(self.configuration, indent=1).encode())
        kept = self.read()
        wait_for_all("nteq: every process has read the chunks")
        return kept

    def read(self) -> dict[int, np.ndarray]:
        """All predictions in the folder, by member."""
        found: dict[int, np.ndarray] = {}
        for path in sorted(self.folder.glob("members-*.npz")):
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest()[:16] != path.stem.rsplit("-", 1)[-1]:
                raise ValueError(
                    f"run: {path} is truncated or was altered: its content does not match the checksum in "
                    "its name. Delete that file, and resuming trains its members again."
                )
            with np.load(io.BytesIO(content), allow_pickle=False) as chunk:
                predictions = chunk["predictions"]
                if "dtype" in chunk:
                    predictions = predictions.view(np.dtype(str(chunk["dtype"])))
                found |= zip(chunk["members"].tolist(), predictions, strict=True)
        return found

    def write(self, predictions: dict[int, np.ndarray]) -> None:
        """One more chunk."""
        if not predictions:
            return
        members = sorted(predictions)
        values = np.stack([predictions[i] for i in members])
        entries = {"members": np.array(members), "predictions": values}
        if values.dtype.kind == "V":  # bfloat16, whose name NumPy's files do not keep
            bits = np.dtype(f"u{values.dtype.itemsize}")
            entries |= {"predictions": values.view(bits), "dtype": np.array(values.dtype.name)}
        content = io.BytesIO()
        np.savez(content, **entries)
        digest = hashlib.sha256(content.getbuffer()).hexdigest()[:16]
        self._write(f"members-{members[0]:06d}-{members[-1]:06d}-{digest}.npz", content.getbuffer())

    def _write(self, name: str, content: bytes | memoryview) -> None:
        """Writes a file that appears under its name when all of it is on the disk, or not at all."""
        partial_file = self.folder / f".{name}.{os.getpid()}.part"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with open(partial_file, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial_file.replace(self.folder / name)
        except OSError as error:
            with contextlib.suppress(OSError):
                partial_file.unlink()
            raise OSError(
                error.errno,
                f"run: cannot write {name} ({error.strerror}). The chunks stored before are whole; make room "
                "or give another folder to which you copied them, and go on with resume=True",
                str(self.folder),
            ) from error


def wait_for_all(name: str) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
