"""Real examples of datasets, as the site shows them beside samples: the first of the test split, not chosen.

python scripts/picture_examples.py leaderboards/examples digits mnist ...
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from benchmark.build import build_data, build_examination
from benchmark.config import load_data
from benchmark.record import write_once
from benchmark.traces import traces


def main(target: Path, names: list[str]) -> None:
    for name in names:
        config = load_data(name)
        data = build_data(config, None)
        examination = build_examination(config.modality)
        examples = data.split("test").examples(data.spec.shape)[: examination.fact.shown]
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder)
            (run / "samples").mkdir()
            examination.modality.show(examples, data.spec, data.decode, run / "samples" / "final")
            for suffix, content in traces(run).items():
                print(write_once(target / f"{name}{suffix}", content))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(f"usage: {sys.argv[0]} FOLDER DATA [DATA ...]")
    main(Path(sys.argv[1]), sys.argv[2:])
