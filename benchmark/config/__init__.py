"""What is to be run: files and settings become an `Experiment`, or a one-line refusal before any work.

`files` reads, `settings` understands a command line, `experiment` says what an experiment is, `composition` makes one.
Neither torch nor a model is imported.
"""

from benchmark.config.composition import (
    compose,
    default_names,
    experiment_again,
    load_suite,
    overrides_of,
    resumed,
    stage_of,
    strangers,
    tuned_identity,
)
from benchmark.config.experiment import (
    STAGES,
    DataConfig,
    Experiment,
    ModelConfig,
    Origin,
    Rename,
    Stage,
    consent,
    family_of,
    from_container,
    identity,
    load_data,
    load_model,
    name_today,
    read_suite,
    renamed,
    trusted,
    validate,
)
from benchmark.config.files import choices, config_folders, find, read_group, read_yaml
from benchmark.config.settings import as_setting, distinct, value_of

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
    "stage_of",
    "strangers",
    "trusted",
    "tuned_identity",
    "validate",
    "value_of",
]
