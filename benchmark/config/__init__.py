"""What is to be run: files and settings become an `Experiment`, or a one-line refusal before any work.

`files` reads and `settings` understands a command line. `shapes` refuses what does not fit; of `groups` and `stage`s
is an `experiment`, which `composition` makes. `identities` says which are the same, `renames` what they were called.
Neither torch nor a model is imported.
"""

from benchmark.config.composition import (
    compose,
    default_names,
    experiment_again,
    load_suite,
    overrides_of,
    resumed,
    seeds_of,
    stage_of,
    strangers,
    tuned_identity,
)
from benchmark.config.experiment import Experiment, from_container, load_data, load_model, read_suite, validate
from benchmark.config.files import choices, config_folders, dump_yaml, find, read_group, read_yaml
from benchmark.config.groups import DataConfig, ModelConfig, consent, family_of, trusted
from benchmark.config.identities import identity
from benchmark.config.renames import Rename, name_today, renamed
from benchmark.config.settings import as_setting, distinct, value_of
from benchmark.config.stage import STAGES, Origin, Stage

__all__ = [
    "STAGES",
    "DataConfig",
    "Experiment",
    "ModelConfig",
    "Origin",
    "Rename",
    "Stage",
    "as_setting",
    "choices",
    "compose",
    "config_folders",
    "consent",
    "default_names",
    "distinct",
    "dump_yaml",
    "experiment_again",
    "family_of",
    "find",
    "from_container",
    "identity",
    "load_data",
    "load_model",
    "load_suite",
    "name_today",
    "overrides_of",
    "read_group",
    "read_suite",
    "read_yaml",
    "renamed",
    "resumed",
    "seeds_of",
    "stage_of",
    "strangers",
    "trusted",
    "tuned_identity",
    "validate",
    "value_of",
]
