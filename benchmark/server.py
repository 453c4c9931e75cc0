"""Processes that do not pay the imports again: they are forked from a server that has imported everything.

Python's own `forkserver` is the server. It starts with the settings that only the start of a process can take, imports
`benchmark.preload`, and keeps one thread, since threads do not survive a fork. A child gets its task and its
environment from the command that wants it, and says over a pipe what happens. It ends when that command ends, however
that one ends. Where forking is not safe (macOS), each child imports for itself.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from pathlib import Path
from queue import SimpleQueue
from types import FrameType
from typing import Any
from weakref import WeakSet

from benchmark.config import from_container
from benchmark.record import code_hash, code_identity, started_with
from benchmark.spec import BadInput

METHOD = "forkserver" if sys.platform == "linux" else "spawn"
PRELOAD = "benchmark.preload"

#: glibc returns large blocks to the system after every step otherwise: up to 28 % of a training's time in page faults.
MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": "33554432",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
    "MALLOC_TOP_PAD_": "134217728",
}
#: Libraries start their threads when they are imported. A run sets for itself how many it wants.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

STOPPED = 130  # exit code of a process that the user stopped
UNKNOWN = 255  # Python's exit code of a child whose server was killed
GRACE = 30.0  # seconds in which a child that has closed its pipe is gone
LINES, LETTERS, TAIL = 3, 160, 65536  # of what a child printed last

Event = dict[str, Any]  # of progress: phase, examples, total, loss, rate (examples a second), left (seconds)


@dataclass(frozen=True)
class Task:
    """A run that a child is to carry out, as plain data."""

    config: Mapping[str, Any]  # an experiment's container
    trust: tuple[str, ...] = ()
    folder: Path | None = None  # of a run that resumes, or of a trial; `None`: a new one
    study: str | None = None  # of a trial


class Child:
    """A process that carries out one task; without a task it only imports."""

    def __init__(self, task: Task | None) -> None:
        """Start it. Returns when it runs: at once, or when the server has imported."""
        self.refused: str | None = None  # why it refused its task
        self.stopped = False  # whether it was told to end
        self.problem = ""  # why it ended without having done its task, in a line
        self._output = tempfile.TemporaryFile()  # noqa: SIM115
        self._connection, theirs = multiprocessing.Pipe()
        output = Connection(os.dup(self._output.fileno()), readable=False)  # so that the file travels as a pipe does
        with theirs, output:
            self._process = _fork(theirs, output, task)

    @property
    def pid(self) -> int:
        pid: int = self._process.pid
        return pid

    def events(self) -> Iterator[Event]:
        """What it says until it ends: `folder`; progress (`phase`, `examples`, …); and of a trial after each
        validation `score` and `examples`, after which it waits for `answer`."""
        last: Event = {}
        with suppress(EOFError, OSError):  # it is gone, perhaps in the middle of a message
            while not last.keys() & {"done", "refused", "stopped"}:
                last = self._connection.recv()
                yield last
        code = _bury(self._process)
        self.refused = last.get("refused")
        self.stopped = "stopped" in last or code == -signal.SIGTERM
        if "done" not in last:
            self.problem = "stopped" if self.stopped else self.refused or _ending(code, self._printed())
        self._connection.close()
        self._output.close()

    def answer(self, go_on: bool) -> None:
        """Whether the trial is to continue. A child that is gone hears nothing; `problem` tells."""
        with suppress(OSError):
            self._connection.send(go_on)

    def stop(self) -> None:
        """Ask it to end, as Ctrl-C asks a command."""
        self._process.terminate()

    def _printed(self) -> list[str]:
        size = os.fstat(self._output.fileno()).st_size
        content = os.pread(self._output.fileno(), TAIL, max(0, size - TAIL)).decode(errors="replace")
        return [line.strip()[:LETTERS] for line in content.splitlines() if line.strip()][-LINES:]


def _ending(code: int, printed: Sequence[str]) -> str:
    if code == 1 and printed:
        return printed[-1]  # of an exception: what it was
    if code in (0, UNKNOWN):
        how = "ended without a word"
    elif code > 0:
        how = f"exit code {code}"
    else:
        name = {one.value: one.name for one in signal.Signals}.get(-code, f"signal {-code}")
        how = f"killed by {name}" + (", as the system does where memory is short" if name == "SIGKILL" else "")
    return how + (f"; its last lines: {' / '.join(printed)}" if printed else "")


class Children:
    """The processes of one command, so that all can be told to end: those too that are just starting."""

    def __init__(self) -> None:
        self._begun: WeakSet[Child] = WeakSet()
        self._ending = False
        self._lock = threading.Lock()

    def start(self, task: Task) -> Child | None:
        """A child for `task`; `None` where all have been told to end."""
        with self._lock:
            if self._ending:
                return None
            child = Child(task)
            self._begun.add(child)
            return child

    def stop(self) -> None:
        """Ask all to end as Ctrl-C does, and wait for none."""
        with self._lock:
            self._ending = True
            for child in self._begun:
                child.stop()


def begin() -> None:
    """Have the server import, unless it has. Raises `BadInput` where it cannot."""
    if METHOD == "forkserver":
        child = Child(None)
        list(child.events())
        if child.problem:
            raise BadInput(child.problem)


_LOCK = threading.Lock()  # Python's own bookkeeping of processes is not made for threads


def _fork(connection: Connection, output: Connection, task: Task | None) -> Any:
    """The process that carries out `task`. Raises `BadInput` where the server dies over its imports."""
    with _LOCK:
        context: Any = multiprocessing.get_context(METHOD)
        arguments = (connection, output, task, dict(os.environ), code_hash())
        process = context.Process(target=_serve, args=arguments)
        try:
            if METHOD == "forkserver":
                context.set_forkserver_preload([PRELOAD])
                path = os.pathsep.join(place or os.getcwd() for place in sys.path)
                memory = {name: os.environ.get(name, value) for name, value in MALLOC.items()}
                with _exported({**memory, **ONE_THREAD, "PYTHONPATH": path}):
                    forkserver.ensure_running()
            process.start()
        except (EOFError, OSError) as error:
            raise BadInput(f"the process that imports for all runs ended over it ({error}): try again") from error
        return process


def _bury(process: Any) -> int:
    """The exit code of a child that has closed its pipe."""
    wait([process.sentinel], GRACE)
    with _LOCK:
        process.join(0)
        if process.exitcode is None:  # it hangs
            process.kill()
            process.join()
        code: int = process.exitcode
        return code


@contextmanager
def _exported(settings: Mapping[str, str]) -> Iterator[None]:
    """Inside, a process that starts has these in its environment; the rest of it stays, as other threads read it."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


# In a child ----------------------------------------------------------------------------------------------------------


def _serve(
    connection: Connection, output: Connection, task: Task | None, environment: dict[str, str], code: str
) -> None:
    """What a child does; `code` is the hash of the code that the command expects."""
    for stream in (1, 2):  # also what compiled code prints
        os.dup2(output.fileno(), stream)
    output.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal tells all of them: the command passes it on
    signal.signal(signal.SIGTERM, _interrupt)
    answers: SimpleQueue[bool] = SimpleQueue()
    threading.Thread(target=_listen, args=(connection, answers), daemon=True).start()
    os.environ.clear()
    os.environ.update(environment)

    def say(event: Event) -> None:
        try:
            connection.send(event)
        except OSError:
            os._exit(STOPPED)  # the command is gone: no one needs this process any more

    try:
        from benchmark import preload

        if preload.problem:
            raise BadInput(preload.problem)
        if code_hash() != code:
            raise BadInput("the code changed while it was being imported: give the command again")
        if task is not None:
            _carry_out(task, say, answers.get)
    except BadInput as error:
        say({"refused": str(error)})
    except KeyboardInterrupt:
        say({"stopped": True})
        sys.exit(STOPPED)
    else:
        say({"done": True})


def _carry_out(task: Task, say: Callable[[Event], None], hear: Callable[[], bool]) -> None:
    from benchmark import train

    experiment = from_container(task.config, task.trust)
    folder = task.folder
    if folder is None or (task.study is not None and started_with(folder) != code_identity(experiment.targets)):
        if folder is not None:  # what other code began is begun anew
            (folder / "last.ckpt").unlink(missing_ok=True)
        folder = train.prepare(experiment, folder)
    say({"folder": str(folder)})

    def go_on(score: float, examples: int) -> bool:
        say({"score": score, "examples": examples})
        return hear()

    purpose = train.Purpose() if task.study is None else train.Purpose("trial", task.study, go_on)
    train.carry_out(folder, lambda progress: say(asdict(progress)), task.trust, purpose)


def _interrupt(*_: int | FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough
    raise KeyboardInterrupt


def _listen(connection: Connection, answers: SimpleQueue[bool]) -> None:
    """Pass on what the command says; end with it."""
    with suppress(EOFError, OSError):
        while True:
            answers.put(connection.recv())
    os._exit(STOPPED)
