"""Processes that do not pay the imports again: children are forked from a server that has imported everything.

Python's own `forkserver` is the server. It starts with the settings that only the start of a process can take, imports
what training and scoring need (`benchmark.preload`), and keeps one thread, since threads do not survive a fork. A child
gets its task over a pipe, its environment and its folder too, and answers in JSON. It ends when the process that
started it ends, however that one ends.

Where forking is not safe (macOS), each child imports for itself.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import site
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from multiprocessing import forkserver, spawn
from multiprocessing.connection import Connection, wait
from pathlib import Path
from queue import SimpleQueue
from types import FrameType
from typing import Any

from benchmark.record import Kind
from benchmark.spec import BadInput

#: glibc returns large blocks to the system after every step otherwise: up to 28 % of a training's time in page faults.
MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": "33554432",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
    "MALLOC_TOP_PAD_": "134217728",
}
#: Libraries start their threads when they are imported. A child sets for itself how many it wants.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

METHOD = "forkserver" if sys.platform == "linux" else "spawn"
PRELOAD = ["benchmark.preload"]
START = "BENCHMARK_SERVER"  # the variable that tells `preload` what the server needs to know
OUTPUT = "output.log"  # what a child prints, in the folder of its run
STOPPED = 130  # exit code of a process that the user stopped
UNKNOWN = 255  # Python's exit code of a child whose server was killed
GRACE = 30.0  # seconds in which a child that has closed its pipe is gone
LINES, LETTERS = 3, 160  # of what a killed child printed last

Event = dict[str, Any]


class CannotImport(BadInput):
    """The server ended before it could serve: something cannot be imported."""


@dataclass(frozen=True)
class Task:
    """What a child is to do, as plain data."""

    config: Mapping[str, Any]  # an experiment's container
    folder: str | None = None  # of the run: one that holds a configuration is resumed; `None`: a new one
    kind: Kind = "run"
    group: str | None = None  # of a trial: its study
    trust: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    directory: str = field(default_factory=os.getcwd)


class Child:
    """A process that carries out one task."""

    def __init__(self, task: Task) -> None:
        """Start it. Returns once it runs: at once, or when the server has imported.

        Raises `CannotImport` where the server cannot.
        """
        self._end: Event = {}  # what it said of its end
        self._exitcode: int | None = None
        self._printed: list[str] = []  # its last lines
        self._output = tempfile.TemporaryFile()  # until its run has a folder
        self._log: tuple[Path, int] | None = None  # and from where on it is this child's
        self._connection, theirs = multiprocessing.Pipe()
        output = Connection(os.dup(self._output.fileno()), readable=False)  # so that the file travels as a pipe does
        with theirs, output:
            self._process = _SERVER.fork(theirs, output, task)

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def events(self) -> Iterator[Event]:
        """What it says until it ends.

        `folder`; progress (`phase`, `examples`, …); and of a trial after each validation `score` and `examples`, after
        which it waits for `answer`.
        """
        with self._connection, self._output:
            while (event := self._receive()) is not None:
                if "log" in event:
                    self._log = Path(event["log"]), int(event["start"])
                elif event.keys() & {"done", "refused", "stopped"}:
                    self._end = event
                else:
                    yield event
            self._exitcode = _SERVER.bury(self._process)
            self._printed = self._last_lines()

    def _receive(self) -> Event | None:
        try:
            event: Event = json.loads(self._connection.recv_bytes())
        except (EOFError, OSError):  # it is gone, perhaps in the middle of a message
            return None
        return event

    def answer(self, go_on: bool) -> None:
        """Whether the trial is to continue. A child that is gone hears nothing; `problem` tells."""
        with suppress(OSError):
            self._connection.send_bytes(json.dumps({"go_on": go_on}).encode())

    def stop(self) -> None:
        """Ask it to end, as Ctrl-C asks a command."""
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()

    @property
    def refused(self) -> str | None:
        """Why it refused its task."""
        return self._end.get("refused")

    @property
    def stopped(self) -> bool:
        return "stopped" in self._end or self._exitcode == -signal.SIGTERM

    @property
    def problem(self) -> str:
        """Why it ended without having done its task, in a line; empty where it has done it."""
        if "done" in self._end:
            return ""
        if self.stopped:
            return "stopped"
        if self.refused is not None:
            return self.refused
        code, printed = self._exitcode, self._printed
        if code is not None and 0 < code < UNKNOWN and printed:
            return printed[-1]  # of an exception: what it was
        return _ending(code) + (f"; its last lines: {' / '.join(printed[-LINES:])}" if printed else "")

    def _last_lines(self) -> list[str]:
        content = b""
        if self._log is not None and self._log[0].is_file():
            content = self._log[0].read_bytes()[self._log[1] :]
        if not content.strip():
            self._output.seek(0)
            content = self._output.read()
        return _lines(content)


def _lines(content: bytes) -> list[str]:
    return [line.strip()[:LETTERS] for line in content.decode(errors="replace").splitlines() if line.strip()]


def _ending(code: int | None) -> str:
    if code is None or code in (0, UNKNOWN):
        return "it ended without a word"
    if code > 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return f"killed by {name}" + (", as the system does where memory is short" if name == "SIGKILL" else "")


class Children:
    """The processes of one command, so that all can be told to end: those too that are just starting."""

    def __init__(self) -> None:
        self._begun: list[Child] = []
        self._ending = False
        self._lock = threading.Lock()

    def start(self, task: Task) -> Child | None:
        """A child for `task`; `None` where all have been told to end."""
        if self._ending:
            return None
        try:
            child = Child(task)
        except CannotImport:
            if self._ending:
                return None
            raise
        with self._lock:
            self._begun.append(child)
            if self._ending:
                child.stop()
        return child

    def stop(self) -> None:
        """Ask all to end as Ctrl-C does, and wait for none."""
        self._tell(Child.stop)

    def kill(self) -> None:
        self._tell(Child.kill)

    def _tell(self, end: Any) -> None:
        with self._lock:
            self._ending = True
            for child in self._begun:
                end(child)
        _SERVER.give_up()


def begin() -> None:
    """Start the server, unless it runs: it imports while the command does other things."""
    _SERVER.begin()


class _Server:
    """The server of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # Python's own bookkeeping of processes is not made for threads
        self._log = tempfile.TemporaryFile()
        self._serving = False

    def begin(self) -> None:
        if METHOD != "forkserver":
            return
        context = multiprocessing.get_context(METHOD)
        context.set_forkserver_preload(PRELOAD)
        with self._lock, _exported(self._settings()):
            forkserver.ensure_running()

    def fork(self, connection: Connection, output: Connection, task: Task) -> Any:
        """The process of a child that carries out `task`."""
        if sys.platform == "win32":
            raise BadInput("suites and sweeps need Linux or macOS; `python -m benchmark run` works here")
        self.begin()
        arguments = (connection, output, json.dumps(asdict(task)))
        process = multiprocessing.get_context(METHOD).Process(target=_serve, args=arguments)
        with self._lock:
            try:
                if METHOD == "forkserver":
                    process.start()  # waits until the server serves
                else:
                    with _exported(ONE_THREAD | MALLOC):
                        process.start()
            except (EOFError, OSError) as error:
                raise CannotImport(f"what training and scoring need cannot be imported: {self._why()}") from error
            self._serving = True
        return process

    def bury(self, process: Any) -> int | None:
        """The exit code of a child that has closed its pipe."""
        wait([process.sentinel], GRACE)
        with self._lock:
            process.join(0)
            if process.exitcode is None:  # it hangs
                process.kill()
                process.join()
            return process.exitcode

    def give_up(self) -> None:
        """End a server that is still importing: whoever waits for it gets `CannotImport`."""
        if METHOD != "forkserver" or self._serving:
            return
        for _ in range(100):  # it says its id when it begins
            said = self._said()
            if said and said[0].isdecimal():
                with suppress(ProcessLookupError):
                    os.kill(int(said[0]), signal.SIGKILL)
                return
            time.sleep(0.02)

    def _settings(self) -> dict[str, str]:
        """What the environment of the server has beside ours."""
        data = spawn.get_preparation_data("")  # children would run the command's own script again; `preload` says why not
        script = {key: data[key] for key in ("init_main_from_name", "init_main_from_path") if key in data}
        told = {"log": f"/proc/{os.getpid()}/fd/{self._log.fileno()}", "script": script}
        home = str(Path(__file__).resolve().parents[1])
        paths = [home] if home not in site.getsitepackages() else []
        paths += [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
        python = {"PYTHONPATH": os.pathsep.join(paths)} if paths else {}
        memory = {name: os.environ.get(name, value) for name, value in MALLOC.items()}
        return {START: json.dumps(told), **ONE_THREAD, **memory, **python}

    def _said(self) -> list[str]:
        return _lines(os.pread(self._log.fileno(), 1 << 20, 0))

    def _why(self) -> str:
        said = self._said()
        return said[-1] if said[1:] else "the process that imports it was killed"


_SERVER = _Server()


@contextmanager
def _exported(settings: Mapping[str, str]) -> Iterator[None]:
    """Inside, a process that starts has these in its environment."""
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


def _serve(connection: Connection, output: Connection, content: str) -> None:
    """What a child does."""
    _print_to(output.fileno())
    output.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal tells all of them: the command passes it on
    signal.signal(signal.SIGTERM, _interrupt)
    answers: SimpleQueue[Event] = SimpleQueue()
    threading.Thread(target=_listen, args=(connection, answers), daemon=True).start()

    def say(event: Event) -> None:
        connection.send_bytes(json.dumps(event).encode())

    def log_to(folder: Path) -> None:
        file = folder / OUTPUT
        with file.open("ab") as log:
            _print_to(log.fileno())
            say({"log": str(file.resolve()), "start": log.tell()})

    given = json.loads(content)
    task = Task(**given | {"trust": tuple(given["trust"])})
    os.environ.clear()
    os.environ.update(task.environment)
    os.chdir(task.directory)
    try:
        from benchmark import work

        work.carry_out(task, say, answers.get, log_to)
    except BadInput as error:
        say({"refused": str(error)})
    except KeyboardInterrupt:
        say({"stopped": True})
        sys.exit(STOPPED)
    else:
        say({"done": True})


def _print_to(descriptor: int) -> None:
    """Send what this process prints there, also what compiled code prints."""
    sys.stdout.flush()
    for stream in (1, 2):
        os.dup2(descriptor, stream)


def _interrupt(*_: int | FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough
    raise KeyboardInterrupt


def _listen(connection: Connection, answers: SimpleQueue[Event]) -> None:
    """Pass on what the command says; end with it."""
    with suppress(EOFError, OSError):
        while True:
            answers.put(json.loads(connection.recv_bytes()))
    os._exit(STOPPED)  # nobody wants what this process is doing
