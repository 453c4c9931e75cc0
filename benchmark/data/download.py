"""Files from elsewhere: fetched once, atomically, and never used unverified."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import requests
from filelock import FileLock
from requests.adapters import HTTPAdapter
from rich.progress import Progress
from urllib3.util import Retry

from benchmark.spec import BadInput

CHUNK = 1 << 18  # bytes
TIMEOUT = (10, 60)  # seconds to connect, and between two chunks


@dataclass(frozen=True)
class Remote:
    """A file that has a home elsewhere."""

    path: str  # where it lies under the data root
    urls: tuple[str, ...]  # tried in this order
    checksum: str  # "sha256:…" or "md5:…"


def fetch(root: Path, remote: Remote) -> Path:
    """The verified file under `root`, downloaded first if it is not there.

    Processes that want the same file at once wait for one of them. A download goes to a temporary file that becomes
    the real one only after its checksum agrees. One that fails or is interrupted leaves nothing behind.

    Raises `BadInput` if a file that is there has another checksum (it is left alone), or if none can be had.
    """
    path = root / remote.path
    if not path.exists():
        acquire(remote, path)
    verify(path, remote.checksum)
    return path


def acquire(remote: Remote, path: Path) -> None:
    """Download a file that is not there. Raises `BadInput` if it cannot be had, or not be written."""
    try:
        with _alone(path):
            if not path.exists():
                _download(remote, path)
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error}; make it writable or set another data root") from error


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Inside, no other process fetches the file at `path`. Folders made for it disappear if they stay empty."""
    made = [folder for folder in path.parents if not folder.exists()]  # the innermost first
    lock = path.with_name(f"{path.name}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(lock):
            try:
                yield
            finally:
                lock.unlink()  # while it is held: a process that waits for it sees that, and takes a new one
    finally:
        for folder in made:
            with suppress(OSError):  # it is not empty
                folder.rmdir()


def verify(path: Path, checksum: str) -> None:
    """Raises `BadInput` unless the file can be read and has this checksum."""
    try:
        found = _checksum(path, checksum)
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}; make it a readable file") from error
    if found != checksum:
        raise BadInput(f"{path} has checksum {found}, must be {checksum}: replace it, or delete it and fetch it again")


def _checksum(path: Path, like: str) -> str:
    algorithm = like.partition(":")[0]
    with path.open("rb") as file:
        return f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"


def _download(remote: Remote, path: Path) -> None:
    partial = path.with_name(f"{path.name}.part")  # what a killed process left there is overwritten
    retry = Retry(total=3, backoff_factor=0.2, status_forcelist=(429, 500, 502, 503, 504))
    failures = []
    try:
        with requests.Session() as session:
            for scheme in ("http://", "https://"):
                session.mount(scheme, HTTPAdapter(max_retries=retry))
            for url in remote.urls:
                try:
                    _stream(session, url, partial)
                except requests.RequestException as error:
                    failures.append(f"{url} ({type(error).__name__})")
                    continue
                found = _checksum(partial, remote.checksum)
                if found == remote.checksum:
                    os.replace(partial, path)
                    return
                failures.append(f"{url} (gave {found})")
    finally:
        partial.unlink(missing_ok=True)
    raise BadInput(
        f"cannot fetch {path.name} from {' or '.join(failures)}: put it at {path} by hand; "
        f"its checksum is {remote.checksum}"
    )


def _stream(session: requests.Session, url: str, partial: Path) -> None:
    """Writes what `url` gives to `partial`. A body shorter than announced is an error of requests."""
    headers = {"Accept-Encoding": "identity"}  # the file's own bytes: some servers would gzip them under way
    with session.get(url, stream=True, timeout=TIMEOUT, headers=headers) as response, Progress(transient=True) as bars:
        response.raise_for_status()
        size = response.headers.get("Content-Length")
        bar = bars.add_task(f"fetching {partial.stem}", total=int(size) if size else None)
        with partial.open("wb") as file:
            for chunk in response.iter_content(CHUNK):
                file.write(chunk)
                bars.advance(bar, len(chunk))
