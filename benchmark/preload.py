"""What the server of `benchmark.server` does once, so that its children need not: it imports what training and scoring
need, and hashes the code. Importing this module does it; `problem` says why a run cannot start.
"""

from __future__ import annotations

import signal
from contextlib import suppress
from importlib import import_module
from pkgutil import walk_packages

from benchmark import data, metrics, modalities, models, record

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the server without a word: the command has one

#: What a run imports on its way, beside its model, data and metrics.
LATE = ("sklearn.datasets", "sklearn.kernel_ridge", "wandb.apis.public")

problem = ""

try:
    import benchmark.train  # noqa: F401
except (ImportError, OSError, RuntimeError) as error:  # what libraries raise that are missing, or do not go together
    problem = f"what training needs cannot be imported: {type(error).__name__}: {str(error).partition(chr(10))[0]}"

_OURS = (
    found.name
    for package in (models, data, metrics, modalities)
    for found in walk_packages(package.__path__, f"{package.__name__}.", onerror=lambda name: None)
)
for _name in (*LATE, *_OURS):
    with suppress(Exception):  # a run that needs it imports it again, and fails for this reason
        import_module(_name)

record.git_state()
record.code_hash()  # after the imports: `benchmark.server` compares it with what it was before
