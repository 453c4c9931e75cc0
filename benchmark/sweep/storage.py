"""Where a study is kept: a journal file that several processes may write to, or a database."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from filelock import FileLock
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from benchmark.spec import BadInput

OPENINGS = 6  # of a database, before what it says counts


def open_storage(where: str) -> BaseStorage:
    """A journal file, or any storage URL that Optuna takes."""
    if "://" not in where:
        return open_journal(Path(where))
    from sqlalchemy.exc import IntegrityError, ProgrammingError, SQLAlchemyError

    try:
        for _ in range(OPENINGS - 1):
            with suppress(IntegrityError, ProgrammingError):  # another sweep is creating the same tables just now
                return RDBStorage(where, engine_kwargs={"pool_pre_ping": True})
            time.sleep(0.5)
        return RDBStorage(where, engine_kwargs={"pool_pre_ping": True})
    except (SQLAlchemyError, ImportError) as error:
        raise BadInput(f"storage={where.split('@')[-1]} does not open: {str(error).splitlines()[0]}") from error


class _Lock:
    """Optuna's lock on a journal by the system's own lock, which ends with its process."""

    def __init__(self, file: Path) -> None:
        self._lock = FileLock(file)

    def acquire(self) -> bool:
        self._lock.acquire()
        return True

    def release(self) -> None:
        self._lock.release()


def open_journal(file: Path) -> JournalStorage:
    """A study's journal. Half a line at its end, where a writer was killed, would stop every reader: it is cut off."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = _Lock(file.with_name(f"{file.name}.flock"))  # Optuna's own programs lock by a link named .lock
    lock.acquire()
    try:
        content = file.read_bytes() if file.is_file() else b""
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            with file.open("r+b") as journal:
                journal.truncate(len(whole))
    finally:
        lock.release()
    return JournalStorage(JournalFileBackend(str(file), lock_obj=cast(Any, lock)))


def default_storage(runs: str) -> str:
    """One journal for all studies of a folder of runs, so that one dashboard shows them."""
    return str(Path(runs) / "studies" / "journal.log")
