"""Weights of other runs: a first stage inside a model, and what a model's own start from."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from runs import FEW_DRAWS, SHORT, carry_out, experiment, silent
from safetensors.torch import load_file

from benchmark import launch, train
from benchmark.build import data_of, restore
from benchmark.config import Experiment, compose, experiment_again, overrides_of, stage_of
from benchmark.launch import Display, Outcome, run_suite
from benchmark.leaderboard.columns import column
from benchmark.record import Record, origins, read_record
from benchmark.spec import BadInput, sha256
from benchmark.stages import at_hand, settled
from benchmark.train.parts import experts_of

pytestmark = pytest.mark.xdist_group("stages")  # which share runs
STAGE = " ".join(
    ("first_stage=model=vae model.network=mlp model.width=16 model.depth=1 model.latent=4", *SHORT, *FEW_DRAWS)
)
LATENT = ("model=latent_flow", "data=digits", "budget.examples=64", "training.validations=1")
SMALL_GPT = ("model.layers=1", "model.width=32", "model.heads=2")


@pytest.fixture(scope="module")
def two_stages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A flow over the latents of a VAE: the folder of its run, which others read and leave as it is."""
    return carry_out(tmp_path_factory.mktemp("runs"), "latent_flow", STAGE)


def stage_folder(folder: Path) -> Path:
    (found,) = (folder.parents[1] / "vae").iterdir()
    return found


def test_the_record_names_the_first_stage_and_counts_its_cost(two_stages: Path) -> None:
    record, first = read_record(two_stages), read_record(stage_folder(two_stages))
    origin = origins(record)["first_stage"]
    assert origin["run"] == stage_folder(two_stages).name
    assert origin["sha256"] == sha256(stage_folder(two_stages) / "model.safetensors")
    assert origin["config"]["model"] == first.config["model"]
    assert record.config["first_stage"]["run"] is None, "a record names no folder of this machine"
    own, before = record.scores["cpu_minutes"], first.scores["cpu_minutes"].value
    assert own.value is not None
    assert before is not None
    assert own.value == pytest.approx(own.protocol["how"]["of this run"] + before, abs=1e-3)

    def flops(one: Record) -> float:
        score = column("training_flops").score(one)
        assert score is not None
        assert score.value is not None
        return score.value

    each = record.scores["flops_per_example"].value
    assert each is not None
    assert flops(record) == pytest.approx(each * 160 + flops(first))


def test_the_first_stage_keeps_its_weights(two_stages: Path) -> None:
    whole = load_file(two_stages / "model.safetensors")
    before = load_file(stage_folder(two_stages) / "model.safetensors")
    for name, value in before.items():
        assert torch.equal(whole[f"first_stage.{name}"], value), name
    trained = sum(value.numel() for name, value in whole.items() if name.startswith("flow."))
    assert read_record(two_stages).scores["parameters"].value == trained, "what is not trained is no cost"


def test_what_a_run_left_behind_is_whole_without_the_run_that_it_came_from(two_stages: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(two_stages, tmp_path / "moved")
    _, data, model = restore(moved)
    torch.manual_seed(0)
    assert model.sample(2).shape == (2, *data.spec.shape)


def test_the_record_alone_finds_the_same_weights_again(two_stages: Path) -> None:
    """By their hash, or else by configuration and seed; with neither, it says what to run."""
    record = read_record(two_stages)
    runs = two_stages.parents[2]
    again = experiment_again(record.config, {**record.config["runtime"], "runs": str(runs)})
    assert at_hand(again, "first_stage") == stage_folder(two_stages)
    assert settled(again).config_hash == record.config_hash == record.identity
    nowhere = experiment_again(record.config, {**record.config["runtime"], "runs": str(runs / "nothing")})
    with pytest.raises(BadInput, match="first_stage: no finished run of vae on digits, standard, seed 0: run it first"):
        settled(nowhere)


def test_weights_that_changed_are_refused(two_stages: Path, tmp_path: Path) -> None:
    first = shutil.copytree(stage_folder(two_stages), tmp_path / "vae")
    wanted = experiment(tmp_path / "runs", "latent_flow", f"first_stage={first}")
    folder = train.prepare(wanted)
    content = bytearray((first / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (first / "model.safetensors").write_bytes(bytes(content))
    with pytest.raises(BadInput, match=r"no longer holds the weights of run vae: restore it"):
        train.carry_out(folder, silent)
    (first / "record.json").unlink()
    with pytest.raises(BadInput, match=r"is not the folder of a finished run"):
        train.prepare(wanted)


def test_identity_counts_what_the_stage_is_not_its_seed_or_folder(two_stages: Path) -> None:
    def hash_of(stage: str) -> str:
        return compose([*LATENT, f"first_stage={stage}"]).config_hash

    one = hash_of("model=vae budget=quick")
    assert hash_of("budget=quick model=vae data=digits seed=3") == one
    assert hash_of("model=vae budget=standard") != one
    assert hash_of("model=vae budget=quick model.latent=8") != one
    record = read_record(two_stages)
    by_folder = experiment(two_stages.parents[2], "latent_flow", f"first_stage={stage_folder(two_stages)}")
    assert by_folder.config_hash == record.config_hash
    assert compose(overrides_of(record.config)).config_hash == record.config_hash


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["model=vae", "first_stage=model=vae"], "'vae' has no model inside"),
        ([*LATENT, "first_stage.experiment=null"], "'latent_flow' needs a first stage"),
        ([*LATENT, "first_stage=budget=quick"], "name its model"),
        ([*LATENT, "first_stage=model=vea"], "first_stage: unknown model 'vea'; did you mean 'vae'"),
        ([*LATENT, "first_stage=model=vae runtime.threads=1"], "give it to the whole command"),
        ([*LATENT, "first_stage=nowhere"], "nowhere holds no config.yaml"),
        (["model=gpt", "data=pydocs", "from=model=lstm"], "model 'gpt' cannot start from a 'lstm'"),
        (["model=gpt", "data=pydocs", "from=model=gpt", "start.run=x"], "give a run or an experiment, not both"),
    ],
)
def test_what_cannot_be_taken_over_is_refused_in_a_line(settings: list[str], words: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=words.replace("(", r"\(")):
        train.prepare(compose([*settings, f"runtime.runs={tmp_path}"]))
    assert not list(tmp_path.iterdir())


def test_a_first_stage_that_promises_no_latents_is_refused(tmp_path: Path) -> None:
    gan = carry_out(tmp_path, "sngan", "budget.examples=32")
    with pytest.raises(BadInput, match="a SNGAN does not promise Autoencodes: name a VAE, say"):
        train.prepare(experiment(tmp_path, "latent_flow", f"first_stage={gan}"))


# A start -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def language(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT of a text in English."""
    return carry_out(tmp_path_factory.mktemp("language"), "gpt", *SMALL_GPT, "budget.examples=1600")


def test_a_start_gives_weights_options_and_words(language: Path, tmp_path: Path) -> None:
    settings = ["data=synthetic_text", "data.context=64", f"from={language}"]
    folder = carry_out(tmp_path, "gpt", *settings)
    wanted, data, model = restore(folder)
    assert wanted.model.options["width"] == 32, "the model that it starts from has these options"
    old, plain = data_of(restore(language)[0]), data.own
    assert data.spec.levels == old.spec.levels != plain.spec.levels
    x = data.split("test").x[:100]
    assert data.decode(x) == plain.decode(plain.split("test").x[:100]), "the same text"
    assert data.describe()["splits"] == plain.describe()["splits"], "and the same data, as boards see it"
    assert model.sample(1).max() < data.spec.levels
    scratch = read_record(carry_out(tmp_path / "scratch", "gpt", "data=synthetic_text", "data.context=64", *SMALL_GPT))
    tuned, before = read_record(folder), read_record(language).scores["bits_per_byte"].value
    assert tuned.dataset["references"] == scratch.dataset["references"], "baselines know its own words"
    now, forgotten = tuned.scores["bits_per_byte_before"], tuned.scores["forgetting"]
    assert now.protocol["text"] == "pydocs"
    assert now.protocol["context"] == 64
    assert before is not None
    assert now.value is not None
    assert forgotten.value == pytest.approx(now.value - before)
    assert forgotten.value > 0.01, "letters at random have taught it nothing about English"
    assert scratch.scores["forgetting"].absent is not None


def test_training_begins_where_the_other_run_ended(language: Path, tmp_path: Path) -> None:
    short = ("budget.examples=16", "training.validations=1", *SMALL_GPT)
    tuned = read_record(carry_out(tmp_path, "gpt", *short, f"from={language}"))
    scratch = read_record(carry_out(tmp_path, "gpt", *short))
    before = read_record(language).stability["best"]
    assert abs(tuned.stability["initial"] - before) < 0.05 < 1 < scratch.stability["initial"] - before


@pytest.mark.usefixtures("unscored")
def test_adapters_start_from_the_base_and_leave_it_as_it_is(language: Path, tmp_path: Path) -> None:
    short = ("budget.examples=16", "training.validations=1", f"from={language}", "model.adapter_rank=2")
    folder = carry_out(tmp_path, "gpt", *short)
    tuned, base = load_file(folder / "model.safetensors"), load_file(language / "model.safetensors")
    kept = {name.replace(".parametrizations", "").removesuffix(".original"): value for name, value in tuned.items()}
    assert all(torch.equal(kept[name], value) for name, value in base.items())
    added = [value for name, value in tuned.items() if name.endswith(".B")]
    assert len(added) == 4
    assert all(value.abs().max() > 0 for value in added)
    assert read_record(folder).scores["parameters"].value == sum(
        value.numel() for name, value in tuned.items() if name.endswith((".A", ".B"))
    )
    merged = carry_out(tmp_path / "merged", "gpt", f"from={folder}", "model.adapter_rank=0", *short[:2])
    before, after = read_record(folder).stability["best"], read_record(merged).stability["initial"]
    assert after == pytest.approx(before, abs=1e-4), "a whole model goes on where its adapters ended"


@pytest.mark.usefixtures("unscored")
def test_what_was_scored_under_other_conditions_is_no_measure_of_forgetting(language: Path, tmp_path: Path) -> None:
    for settings, known in (
        ([], True),
        (["evaluation.split=validation"], False),
        (["evaluation.stride=16"], False),
        (["data.context=32"], False),
    ):
        wanted = settled(experiment(tmp_path, "gpt", f"from={language}", *settings))
        earlier = experts_of(wanted, data_of(wanted), torch.device("cpu")).earlier
        assert earlier is not None
        assert earlier.data.spec.shape == data_of(wanted).spec.shape, "windows are those of tuning"
        assert (earlier.bits_per_byte is not None) == known, settings


def test_another_name_for_the_same_kind_of_model_has_the_options_of_its_own_file(language: Path) -> None:
    other = compose(["model=gpt2", "data=pydocs", "budget.examples=16", *SMALL_GPT, f"from={language}"])
    assert other.model.options["positions"] == "learned"


def test_a_text_with_letters_that_the_model_never_knew_is_refused(tmp_path: Path) -> None:
    few = carry_out(tmp_path, "gpt", "data=synthetic_text", "data.context=64", *SMALL_GPT)
    with pytest.raises(BadInput, match=r"'.' is not one of the characters of synthetic_text, which pydocs has"):
        train.prepare(experiment(tmp_path, "gpt", f"from={few}"))


# What is missing is trained first ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_suite_trains_what_is_missing_once(tmp_path: Path) -> None:
    """In processes of their own; two runs that take over one experiment share its run."""
    wanted = [
        experiment(tmp_path, "latent_flow", STAGE, f"model.couplings={couplings}", "budget.examples=32")
        for couplings in (2, 4)
    ]
    outcomes = run_suite(wanted, 1, Display())
    assert [outcome.record is not None and outcome.record.status for outcome in outcomes] == ["finished"] * 2
    assert len(list(tmp_path.glob("digits/vae/*/record.json"))) == 1
    again = run_suite(wanted, 1, Display())
    assert [one.folder for one in again] == [one.folder for one in outcomes], "they have records"
    assert stage_of(wanted[0], "first_stage").seed == wanted[0].seed


def test_a_suite_goes_on_past_a_first_stage_that_does_not_finish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What needs it says so; what does not is carried out."""
    begun: list[str] = []

    def begin(one: Experiment, *_: object, **__: object) -> Outcome:
        begun.append(one.model.name)
        return Outcome(one, None, None, "killed")

    monkeypatch.setattr(launch, "_in_process", begin)
    monkeypatch.setattr(launch, "import_once", lambda display: None)
    wanted = [experiment(tmp_path, name, *more) for name, more in (("latent_flow", [STAGE]), ("sngan", []))]
    needs, other = run_suite(wanted, 1, Display())
    assert begun == ["vae", "sngan"]
    assert needs.problem.startswith("first_stage: no finished run of vae on digits")
    assert other.problem == "killed"


def test_what_is_missing_is_carried_out_before_what_needs_it(
    two_stages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, although two need it; what does not finish stops those that need it."""
    asked: list[str] = []

    def carried_out(experiments: list[Experiment], *_: object, **__: object) -> list[Outcome]:
        asked.extend(one.title for one in experiments)
        (one,) = experiments
        folder = tmp_path / "digits" / "vae" / "made"
        shutil.copytree(stage_folder(two_stages), folder)
        return [Outcome(one, folder, read_record(folder))]

    wanted = [experiment(tmp_path, "latent_flow", STAGE, f"model.couplings={n}") for n in (2, 4)]
    monkeypatch.setattr(launch, "run_suite", carried_out)
    ready = launch.with_stages(wanted, 1, Display())
    assert asked == ["vae on digits, standard, seed 0"]
    assert {one.origins["first_stage"].run for one in ready} == {"made"}
    shutil.rmtree(tmp_path / "digits")
    monkeypatch.setattr(launch, "run_suite", lambda missing, *_, **__: [Outcome(missing[0], None, None, "killed")])
    with pytest.raises(BadInput, match=r"vae on digits, standard, seed 0 was to be trained first, .*: killed"):
        launch.with_stages(wanted, 1, Display())
