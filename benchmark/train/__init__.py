"""An experiment becomes a checkpoint and a record: trained, watched, scored, logged.

`run` is the way from a folder to its record, over `training` and `scoring`; both see the `parts` that the experiment
names, on a `device`, and write into the run's `journal`.

A run's folder holds `config.yaml`, `last.ckpt` (to resume from), `model.safetensors` (the weights that validation
chose), `curves.csv`, `samples/`, `wandb/`, `likelihoods.npz` and, when all is done, `record.json`.
"""

from benchmark.train.compiled import blocks_compiled
from benchmark.train.device import device_named, in_bfloat16
from benchmark.train.parts import experts_of, outliers
from benchmark.train.references import references_of
from benchmark.train.run import Purpose, carry_out, prepare
from benchmark.train.scoring import count_flops, final_protocol
from benchmark.train.training import make_plan, make_trainer, quiet_libraries

__all__ = [
    "Purpose",
    "blocks_compiled",
    "carry_out",
    "count_flops",
    "device_named",
    "experts_of",
    "final_protocol",
    "in_bfloat16",
    "make_plan",
    "make_trainer",
    "outliers",
    "prepare",
    "quiet_libraries",
    "references_of",
]
