"""Scores and provenance of one run, to and from JSON: immutable, validated when read, written whole or not at all.

`schema` is what a record holds, `effort` how much training it stands for, `files` reads and writes it, `provenance`
says where a result comes from, `folder` keeps a run under way, `publication` copies its record to the others. Torch is
not imported.
"""

from benchmark.record.effort import examples_seen, share_done, training_flops
from benchmark.record.files import (
    name_skipped,
    per_example_file,
    read_record,
    read_records,
    record_files,
    write_atomic,
    write_once,
    write_per_example,
    write_record,
)
from benchmark.record.folder import (
    begin,
    carrying_on,
    changed_code,
    check_code,
    check_unchanged,
    is_running,
    is_unfinished,
    note_spent,
    set_aside,
    spent,
    started_with,
)
from benchmark.record.provenance import (
    CHANGED,
    code_hash,
    code_identity,
    code_of,
    environment,
    folder_hash,
    git_state,
    hardware,
    is_ours,
    now,
    sources,
)
from benchmark.record.publication import publish, why_no_evidence
from benchmark.record.schema import (
    SCHEMA,
    UNFINISHED,
    Kind,
    Record,
    SaidOfExam,
    Status,
    model_targets,
    origins,
)

__all__ = [
    "CHANGED",
    "SCHEMA",
    "UNFINISHED",
    "Kind",
    "Record",
    "SaidOfExam",
    "Status",
    "begin",
    "carrying_on",
    "changed_code",
    "check_code",
    "check_unchanged",
    "code_hash",
    "code_identity",
    "code_of",
    "environment",
    "examples_seen",
    "folder_hash",
    "git_state",
    "hardware",
    "is_ours",
    "is_running",
    "is_unfinished",
    "model_targets",
    "name_skipped",
    "note_spent",
    "now",
    "origins",
    "per_example_file",
    "publish",
    "read_record",
    "read_records",
    "record_files",
    "set_aside",
    "share_done",
    "sources",
    "spent",
    "started_with",
    "training_flops",
    "why_no_evidence",
    "write_atomic",
    "write_once",
    "write_per_example",
    "write_record",
]
