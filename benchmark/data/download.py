"""Files from elsewhere: fetched once, atomically, and never used unverified."""

from __future__ import annotations

import hashlib
import os
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
    the real one only after its checksum agrees, so that an interrupted one leaves nothing that looks whole.

    Raises `BadInput` if a file that is there has another checksum (it is left alone), or if none can be had.
    """
    path = root / remote.path
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{path}.lock"):
                if not path.exists():
                    _download(remote, path)
                    return path
        except OSError as error:
            raise BadInput(f"cannot write {path}: {error}; make it writable or set another data root") from error
    verify(path, remote.checksum)
    return path


def verify(path: Path, checksum: str) -> None:
    """Raises `BadInput` unless the file has this checksum."""
    found = _checksum(path, checksum)
    if found != checksum:
        raise BadInput(f"{path} has checksum {found}, must be {checksum}: replace it, or delete it and fetch it again")


def _checksum(path: Path, like: str) -> str:
    algorithm = like.partition(":")[0]
    with path.open("rb") as file:
        return f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"


def _download(remote: Remote, path: Path) -> None:
    partial = path.with_name(path.name + ".part")  # what an earlier attempt left there is overwritten
    retry = Retry(total=3, backoff_factor=0.2, status_forcelist=(429, 500, 502, 503, 504))
    failures = []
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
