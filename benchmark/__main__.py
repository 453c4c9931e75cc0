"""The command line: `python -m benchmark VERB`. Thin, and quick to start: torch is imported only where a verb needs it.

Exit codes: 0 done (or agrees), 1 the run failed or diverged, 2 bad input, 3 a re-run differs, 4 not comparable, 130
stopped by Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import io
import json
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import click

from benchmark.spec import BadInput, unknown

if TYPE_CHECKING:
    from benchmark.config import Experiment
    from benchmark.launch import Outcome
    from benchmark.leaderboard.rows import Current
    from benchmark.record import Record
    from benchmark.sweep.studies import Study


RECORDS = Path("leaderboards/records")  # the committed ones


class Stopped(Exception):
    """The user pressed Ctrl-C, or something sent SIGTERM; the message says how to resume."""


class _Verbs(click.Group):
    """Verbs in the order of use; a typo gets the nearest name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            raise unknown("verb", args[0], self.commands)
        return super().resolve_command(ctx, args)


def _packages(ctx: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    """Consent is to whole packages, by the first part of their import path."""
    for package in given:
        if not package.isidentifier():
            first = package.partition(".")[0]
            hint = f": write --trust {first}" if first.isidentifier() else ""
            raise BadInput(f"--trust {package} is not the name of a package{hint}")
    return given


def _settings(ctx: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    """None of them is given twice."""
    from benchmark.config import distinct

    distinct(given)
    return given


#: Whatever carries out a configuration takes it: an import path is code.
_TRUST = click.option(
    "--trust",
    multiple=True,
    metavar="PACKAGE",
    callback=_packages,
    help="Let the configuration name classes of this package.",
)
_SETTINGS = click.argument("overrides", nargs=-1, callback=_settings)


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Train, score and rank generative models under one protocol."""


@cli.command("list")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def list_(as_json: bool) -> None:
    """Models with family, capabilities and paper; datasets; suites. Exit code 1: a file of yours is malformed."""
    from benchmark import catalogue

    content, broken = catalogue.read()
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    click.echo(json.dumps(content, indent=1) if as_json else catalogue.as_text(content, width))
    for line in broken:
        click.echo(f"error: {line}", err=True)
    sys.exit(int(bool(broken)))


@cli.command()
@click.argument("name")
@_TRUST
def data(name: str, trust: tuple[str, ...]) -> None:
    """Fetch dataset NAME if it is missing, and check it."""
    from benchmark.config import load_data

    config = load_data(name, trust)
    from benchmark.build import build_data

    click.echo(json.dumps(build_data(config, root=None).describe(), indent=1))


@cli.command()
@_SETTINGS
@click.option("--resume", type=click.Path(path_type=Path), help="Go on with the run in this folder.")
@click.option(
    "--changed-code", is_flag=True, help="With --resume: continue although the code changed since the run began."
)
@_TRUST
def run(overrides: tuple[str, ...], resume: Path | None, changed_code: bool, trust: tuple[str, ...]) -> None:
    """Train and score one model: model=vae data=digits budget=quick seed=0 model.latent=16 ...

    With --resume only runtime.* may be given, as in runtime.limit_minutes=90.
    """
    from benchmark.config import compose, resumed
    from benchmark.launch import Display, with_stages

    if changed_code and resume is None:
        raise BadInput("--changed-code is about a run that resumes: give --resume RUN, or drop it")
    experiment = resumed(resume, overrides, trust) if resume else compose(overrides, trust)
    with Display() as display:
        if resume is None and experiment.stages:
            (experiment,) = with_stages([experiment], 1, display, trust)
        display.show(experiment.title, {"phase": "importing torch", "examples": 0, "total": 1})
        from benchmark import train

        folder = resume or train.prepare(experiment)
        try:
            again = overrides if resume else ()
            train.carry_out(
                folder,
                lambda progress: display.show(experiment.title, asdict(progress)),
                trust,
                overrides=again,
                changed_code=changed_code,
            )
        except KeyboardInterrupt:
            raise Stopped(
                f"resume with: python -m benchmark run --resume {quote(str(folder))}{_trusting(trust)}"
            ) from None
    sys.exit(_show_runs([folder]))


@cli.command()
@click.argument("name")
@_SETTINGS
@click.option("--fresh", is_flag=True, help="Run again what has a record.")
@_TRUST
def suite(name: str, overrides: tuple[str, ...], fresh: bool, trust: tuple[str, ...]) -> None:
    """Run suite NAME; jobs=2 runs so many at a time, other settings apply to every experiment.

    Runs that have a record are skipped, and one that was stopped is resumed.
    """
    outcomes = _run_suite(name, overrides, fresh, trust)
    code = _show_runs([outcome.folder for outcome in outcomes if outcome.record is not None and outcome.folder])
    for outcome in outcomes:
        if outcome.record is None:
            click.echo(f"failed: {outcome.experiment.title}: {outcome.problem}", err=True)
    sys.exit(code or int(any(outcome.record is None for outcome in outcomes)))


@cli.command()
@_SETTINGS
@click.option("--records", type=click.Path(path_type=Path), help="Judge the records in this folder, and run nothing.")
@click.option("--to", "target", type=click.Path(path_type=Path), help="Write the table to this page too.")
@_TRUST
def truth(overrides: tuple[str, ...], records: Path | None, target: Path | None, trust: tuple[str, ...]) -> None:
    """Run suite `truth`, on data whose entropy is known, and judge what the models report by it.

    model=NAME runs that model, which may be your own, on each dataset of its kind; data=NAME runs only that dataset.
    """
    from benchmark.console import console
    from benchmark.leaderboard.truth import truth_page, truth_table, verdicts
    from benchmark.record import read_records, write_atomic

    problems: list[str] = []
    if records is not None:
        if overrides:
            raise BadInput(f"--records runs nothing: drop {' '.join(overrides)}")
        found, missing = read_records(records, problems), []
    else:
        outcomes = _run_suite("truth", overrides, False, trust)
        found = {
            outcome.folder / "record.json": outcome.record for outcome in outcomes if outcome.folder and outcome.record
        }
        missing = [outcome for outcome in outcomes if outcome.record is None]
    judged = verdicts(found)
    if not judged and not missing:
        raise BadInput(
            f"no records below {records} are on data whose entropy is known: run the suite without --records"
        )
    console().print(truth_table(judged))
    if target is not None:
        click.echo(write_atomic(target, truth_page(judged)))
    for outcome in missing:
        click.echo(f"failed: {outcome.experiment.title}: {outcome.problem}", err=True)
    sys.exit(_named(problems) or int(bool(missing) or any(verdict.problem for verdict in judged)))


@cli.command()
@_SETTINGS
@_TRUST
def sweep(overrides: tuple[str, ...], trust: tuple[str, ...]) -> None:
    """Study hyperparameters: model=vae data=digits trials=64 workers=2 [sampler=qmc] [design=space] [name=...] ...

    \b
    trials=64       that the sampler proposes
    workers=N       at a time, each in a process with one thread
    sampler=qmc     or random, tpe, cmaes, gp
    pruner=none     or median, halving; by default the median rule under samplers that learn
    design=space    the search space of configs/sweep/; or learning_rate: rates=7 with seeds=3 each;
                    or seeds: seeds=3 initialisations with as many orders of the data
    name=NAME       of the study; otherwise it follows from all that decides what the study finds
    storage=URL     any storage of Optuna's; by default a journal below runs/
    continue=STUDY  more trials of a committed study, leaderboards/studies/DATA/NAME.jsonl: its trials count

    Repeat the command to continue a study that was stopped. Other settings apply to every trial.
    """
    from benchmark.sweep.command import plan_of

    summary = _carry_out(*plan_of(overrides, trust))
    if summary.best is None:
        click.echo("no trial learnt anything: each failed, or ended no better than it began", err=True)
        sys.exit(1)
    click.echo(f"best: {summary.best:.6g}, {summary.trial}")
    for key, value in summary.params.items():
        click.echo(f"  {key}={value:.6g}" if isinstance(value, float) else f"  {key}={value}")
    click.echo(f"publish it with: python -m benchmark publish {quote(str(summary.folder))}")


@cli.command()
@click.argument("study", metavar="STUDY", type=click.Path(path_type=Path))
@_SETTINGS
@_TRUST
def confirm(study: Path, overrides: tuple[str, ...], trust: tuple[str, ...]) -> None:
    """Train the best setting of STUDY again on fresh seeds: runs/studies/NAME seeds=5 workers=2 [storage=URL].

    Under the study's budget, and under the standard one beside the tuned setting; on the validation split only. Shows
    by how much the study was too good, says whether the setting beats the tuned one, and writes it to tuned.yaml in the
    study's folder. Exit code 1: it does not beat the tuned setting.
    """
    from benchmark.leaderboard.sensitivity import confirmation_lines
    from benchmark.sweep.command import confirming
    from benchmark.sweep.confirmation import confirmation, propose
    from benchmark.sweep.studies import collect

    summary = _carry_out(*confirming(study, overrides, trust))
    found = confirmation(collect(study), collect(summary.folder))
    if found is None:
        raise BadInput(f"{summary.folder} has no score yet: its trials failed")
    for line in confirmation_lines(found):
        click.echo(line)
    click.echo(f"the setting: {propose(collect(study), study)}")
    click.echo(f"publish this with: python -m benchmark publish {quote(str(summary.folder))}")
    sys.exit(int(found.verdict != "beats the tuned setting"))


@cli.command()
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@_TRUST
@click.option("--renew", is_flag=True, help="Score only what is outdated, into the record of a copy of the run.")
def evaluate(folder: Path, trust: tuple[str, ...], renew: bool) -> None:
    """Score the model in the folder RUN again and print the scores. Its record stays as it is."""
    from benchmark import again

    if renew:
        click.echo(again.renew(folder, trust))
        return
    scores = again.score_again(folder, trust)
    click.echo(json.dumps({name: asdict(score) for name, score in scores.items()}, indent=1))


@cli.command()
@click.option("--records", type=click.Path(path_type=Path), default=RECORDS, show_default=True)
@_TRUST
def recount(records: Path, trust: tuple[str, ...]) -> None:
    """Count the FLOPs of records anew that were counted otherwise than today, into recounted.json beside their folder.

    Boards then show these. Exit code 1: some could not be counted.
    """
    from benchmark.facts import COSTS
    from benchmark.leaderboard.recounted import Recounted, as_json, outdated, read_recounted
    from benchmark.record import read_records, write_atomic

    problems: list[str] = []
    version, target = COSTS["flops_per_example"].version, records.parent / "recounted.json"
    recounted = read_recounted(target)
    wanted = outdated(read_records(records, problems).values(), recounted, version)
    for name, record in wanted.items():
        from benchmark.again import count_again

        try:
            score = count_again(record, trust)
        except BadInput as error:
            problems.append(f"{record.model} on {record.data}: {error}")
            continue
        if score.value is None:
            problems.append(f"{record.model} on {record.data}: {score.absent.reason if score.absent else 'no FLOPs'}")
            continue
        recounted[name] = Recounted(flops_per_example=score.value, version=version)
        click.echo(f"{record.model} on {record.data}: {score.value:,.0f} FLOPs an example")
    click.echo(write_atomic(target, as_json(recounted)) if wanted else f"every count below {records} is of today")
    sys.exit(_named(problems))


@cli.command()
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option("-n", "--number", default=64, type=click.IntRange(min=1), help="How many samples.", show_default=True)
@click.option("--seed", default=0, type=click.IntRange(min=0), show_default=True)
@_TRUST
def sample(folder: Path, number: int, seed: int, trust: tuple[str, ...]) -> None:
    """Draw samples from the model in the folder RUN: a picture, or a text."""
    from benchmark import again

    click.echo(again.sample_again(folder, number, seed, trust))


@cli.command()
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--to", "target", type=click.Path(path_type=Path), default=Path("leaderboards"), show_default=True)
def publish(folder: Path, target: Path) -> None:
    """Copy the record in the folder RUN, with its likelihoods, curves and pictures, to the committed records.

    The folder of a study becomes one file of all its trials.
    """
    from benchmark.record import publish

    if (folder / "study.yaml").is_file():
        from benchmark.sweep.studies import publish_study

        click.echo(publish_study(folder, target / "studies"))
        return
    for file in publish(folder, target / "records"):
        click.echo(file)


@cli.command()
@click.argument("path", metavar="RECORD", type=click.Path(path_type=Path))
@_SETTINGS
@click.option("--records", type=click.Path(path_type=Path), default=RECORDS, show_default=True, help="Other seeds.")
@click.option("--against", type=click.Path(path_type=Path), metavar="RUN", help="Run nothing: compare with this run.")
@_TRUST
def verify(path: Path, overrides: tuple[str, ...], records: Path, against: Path | None, trust: tuple[str, ...]) -> None:
    """Repeat the run that RECORD holds, and say whether its scores are reproduced. runtime.* may be given anew.

    Exit code 0: they agree, 3: they differ, 4: not comparable.
    """
    from benchmark.config import experiment_again
    from benchmark.console import console
    from benchmark.leaderboard.rows import Run
    from benchmark.record import read_record, read_records
    from benchmark.report.verify import EXIT_CODES, as_lines, as_table, check_again, judge, runtime_of

    run = Run(path / "record.json" if path.is_dir() else path, read_record(path))
    if (why := check_again(run.record)) is not None:
        raise BadInput(f"{path}: {why}")
    if against is None:
        against = _run_again(path, experiment_again(run.record.config, runtime_of(run.record), overrides, trust), trust)
    elif overrides:
        raise BadInput(f"--against runs nothing: drop {' '.join(overrides)}")
    again = Run(against / "record.json" if against.is_dir() else against, read_record(against))
    problems: list[str] = []
    judgement = judge(run, again, read_records(records, problems).values())
    console().print(as_table(judgement))
    click.echo("\n".join(as_lines(judgement)))
    _named(problems)
    sys.exit(EXIT_CODES[judgement.verdict])


@cli.command()
@click.argument("names", metavar="[SUITE|RECORD]...", nargs=-1)
@click.option("--records", type=click.Path(path_type=Path), default=RECORDS, show_default=True)
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, help="Your re-runs.")
@click.option("--to", "target", type=click.Path(path_type=Path), default=Path("runs/report"), show_default=True)
def report(names: tuple[str, ...], records: Path, runs: Path, target: Path) -> None:
    """Write how reproducible suites or records are, all committed ones by default: as HTML and as Markdown.

    \b
    Runs below --runs that repeat one of them are judged beside it; `verify` makes such runs.
    """
    from benchmark.config import choices, load_suite
    from benchmark.leaderboard.published import read_published
    from benchmark.record import read_record, read_records, write_atomic
    from benchmark.report.parts import as_html, as_markdown
    from benchmark.report.report import files_of, report

    for name in names:
        if name not in choices("suite") and not Path(name).exists():
            raise unknown("suite or record", name, choices("suite"))
    problems: list[str] = []
    committed, local = read_records(records, problems), read_records(runs, problems)
    suites = [name for name in names if name in choices("suite") and not Path(name).exists()]
    found: dict[Path, Record] = {}
    for place in (Path(name) for name in names if name not in suites):
        files = files_of([place])
        found |= read_records(place, problems) if len(files) > 1 else {file: read_record(file) for file in files}
    missing = []
    for experiment in (one for suite in suites for one in load_suite(suite)):
        wanted = experiment.config_hash, experiment.seed.model_dump()
        of_it = {path: one for path, one in committed.items() if (one.identity, one.seed) == wanted}
        of_it = of_it or {path: one for path, one in local.items() if (one.identity, one.seed) == wanted}
        found |= of_it
        missing += [] if of_it else [experiment.title]
    title = f"Reproducibility of {', '.join(names) or 'all committed records'}"
    figures = _figures(records.parent)
    page = report(
        title,
        found if names else committed,
        {**local, **committed},
        read_published(figures) if figures else (),
        missing,
        problems,
    )
    for name, content in (("report.html", as_html(page)), ("report.md", as_markdown(page))):
        click.echo(write_atomic(target / name, content))
    sys.exit(_named(problems))


@cli.command()
@click.option("--entity", help="Whose W&B account saves the views; without it they are only written down.")
@click.option(
    "--to", "target", type=click.Path(path_type=Path), default=Path("build/dashboard.json"), show_default=True
)
def dashboard(entity: str | None, target: Path) -> None:
    """Build the project's views in Weights & Biases: by family and data, samples, cost against quality, stability."""
    import os

    from benchmark.config import choices, find, load_data
    from benchmark.dashboard import FILE, as_json, read_dashboard, save, workspaces
    from benchmark.facts import modality
    from benchmark.record import write_atomic
    from benchmark.tracking import PROJECT, ask_server

    data = {name: modality(load_data(name).modality) for name in choices("data")}
    definition = read_dashboard(find("dashboard.yaml") or FILE)
    views = workspaces(definition, data, entity or "ENTITY", os.environ.get("WANDB_PROJECT", PROJECT))
    if entity:
        ask_server()
        click.echo("\n".join(save(views)))
        return
    click.echo(write_atomic(target, as_json(views)))
    click.echo("nothing was sent; save the views with: wandb login, then python -m benchmark dashboard --entity NAME")


@cli.command()
@click.argument("runs", type=click.Path(path_type=Path), default=Path("runs"))
def sync(runs: Path) -> None:
    """Upload the offline W&B runs below RUNS (runs/ by default)."""
    from benchmark.tracking import sync

    click.echo(f"{sync(runs)} uploaded")


@cli.command()
@click.argument("files", metavar="RECORD...", nargs=-1, required=True, type=click.Path(path_type=Path))
@_TRUST
def check(files: tuple[Path, ...], trust: tuple[str, ...]) -> None:
    """Say whether submitted records are well-formed; nothing that they name is imported.

    With --trust, protocols of your own metrics are checked too.
    """
    from benchmark.build import load_metrics
    from benchmark.facts import COSTS, metrics
    from benchmark.metrics.extractors import PINNED
    from benchmark.report.check import Known, Required, problems

    required = {name: Required(metric.probes[0].says, metric.protocol) for name, metric in load_metrics(trust).items()}
    networks = {f"{name}@{digest[:8]}" for name, digest in PINNED.items()}
    known = Known(metrics(), COSTS, required, networks)
    found = {file: problems(file, known) for file in files}
    for file, lines in found.items():
        click.echo("\n".join(f"{file}: {line}" for line in lines) or f"{file}: well-formed", err=bool(lines))
    sys.exit(2 if any(found.values()) else 0)


_FOLDERS = click.option(
    "--records",
    "folders",
    multiple=True,
    type=click.Path(path_type=Path),
    default=[RECORDS],
    show_default=True,
    help="Again for your own: what is tuned counts in the first folder, everything in the others.",
)


@cli.command()
@_FOLDERS
@click.option("--to", "target", type=click.Path(path_type=Path), default=Path("leaderboards"), show_default=True)
def leaderboard(folders: tuple[Path, ...], target: Path) -> None:
    """Render the boards from the committed records, and from your own beside them."""
    from benchmark.catalogue import catalogue
    from benchmark.leaderboard.board import boards
    from benchmark.leaderboard.choosing import advice, choosing_page
    from benchmark.record import write_atomic
    from benchmark.sweep.studies import read_studies

    problems: list[str] = []
    found, current, published = _boards(folders, target, problems)
    studies = read_studies(folders[0].parent / "studies", problems)
    pages = boards(found, current, published, target)
    pages["choosing.md"] = choosing_page(advice(found, catalogue()["models"], current, list(studies.values())))
    for name, page in pages.items():
        click.echo(write_atomic(target / name, page))
    for file in _study_pages(studies, found, current, target):
        click.echo(file)
    sys.exit(_named(problems))


@cli.command("compare")
@click.argument("a")
@click.argument("b")
@click.option("--data", help="Dataset, where A and B are models on its board.")
@click.option("--budget", default="standard", show_default=True)
@click.option("--metric", help="Default: the likelihood, or the first score of samples where one has none.")
@click.option("--records", type=click.Path(path_type=Path), default=Path("leaderboards/records"), show_default=True)
def compare_(a: str, b: str, data: str | None, budget: str, metric: str | None, records: Path) -> None:
    """Compare A with B, models or runs: the difference paired by example and by seed, and who wins how often.

    Exit code 4: they do not stand under one protocol.
    """
    from benchmark.console import console
    from benchmark.leaderboard.compare import NotComparable, compare, comparison_table, side

    problems: list[str] = []
    found, current = _published([records], problems)
    try:
        one, two = (side(name, found, current, data, budget) for name in (a, b))
        result = compare(one, two, metric, problems)
    except NotComparable as reason:
        click.echo(f"not comparable: {reason}", err=True)
        sys.exit(4)
    console().print(comparison_table(result))
    sys.exit(_named(problems))


@cli.command()
@_FOLDERS
@click.option("--to", "target", type=click.Path(path_type=Path), default=Path("leaderboards/site"), show_default=True)
def site(folders: tuple[Path, ...], target: Path) -> None:
    """Render the committed records, and your own beside them, as a static site."""
    from benchmark.catalogue import catalogue
    from benchmark.leaderboard.published import read_published
    from benchmark.leaderboard.site.folder import may_replace, write_site
    from benchmark.leaderboard.site.pages import site
    from benchmark.report.parts import as_html
    from benchmark.report.report import report
    from benchmark.sweep.studies import read_studies

    may_replace(target)  # before the work
    problems: list[str] = []
    found, current, published = _boards(folders, target.parent, problems)
    studies = list(read_studies(folders[0].parent / "studies", problems).values())
    figures = read_published(published) if published else ()
    page = report("Reproducibility of all records on the boards", found, {}, figures, problems=problems)
    beside = {"reproducibility": as_html(page, home="index.html")}
    content = site(found, catalogue()["models"], current, published, target, studies, beside, problems)
    click.echo(write_site(content, target))
    sys.exit(_named(problems))


@cli.command()
@click.argument("cases", nargs=-1, metavar="[MODEL@DATA]...")
@click.option("--rounds", default=5, type=click.IntRange(min=1), show_default=True)
@click.option("--reference", type=click.Path(path_type=Path), metavar="FILE", help="Write this machine's rates there.")
@_TRUST
def bench(cases: tuple[str, ...], rounds: int, reference: Path | None, trust: tuple[str, ...]) -> None:
    """What the harness adds to a training step of each model, against a bare loop. Exit code 1: more than allowed.

    With --reference, FILE describes this machine as configs/reference.yaml does the one that budgets are nominal on.
    """
    import torch

    from benchmark.bench import as_machine, as_table, default_cases, measure
    from benchmark.console import console
    from benchmark.reference import as_yaml

    torch.set_num_threads(1)
    rows = []
    for case in cases or default_cases():
        try:
            rows.append(measure(case, rounds, trust))
        except BadInput as error:
            if cases:
                raise
            click.echo(f"skipped {case}: {error}", err=True)
        else:
            click.echo(f"{rows[-1].title}: {rows[-1].ratio:.3f} times, {rows[-1].verdict}", err=True)
    console().print(as_table(rows))
    if reference is not None:
        from benchmark.record import write_atomic

        click.echo(write_atomic(reference, as_yaml(as_machine(rows))))
    sys.exit(int(any(row.verdict.startswith("over") for row in rows)))


def _run_again(record: Path, experiment: Experiment, trust: tuple[str, ...]) -> Path:
    """The folder of a new run of `experiment`, which is that of `record`."""
    from benchmark.launch import Display, with_stages

    with Display() as display:
        if experiment.stages:
            (experiment,) = with_stages([experiment], 1, display, trust)
        display.show(experiment.title, {"phase": "importing torch", "examples": 0, "total": 1})
        from benchmark import train

        folder = train.prepare(experiment)
        try:
            train.carry_out(folder, lambda progress: display.show(experiment.title, asdict(progress)), trust)
        except KeyboardInterrupt:
            first = f"python -m benchmark run --resume {quote(str(folder))}{_trusting(trust)}"
            then = f"python -m benchmark verify {quote(str(record))} --against {quote(str(folder))}"
            raise Stopped(f"resume with: {first} && {then}") from None
    return folder


def _trusting(packages: Sequence[str]) -> str:
    """The options that a command which resumes a run has to repeat."""
    return "".join(f" --trust {package}" for package in packages)


def _named(problems: Sequence[str]) -> int:
    """Name the files that were skipped; exit code 1 where there are some, since what was made lacks them."""
    for problem in dict.fromkeys(problems):
        click.echo(f"skipped: {problem}", err=True)
    return int(bool(problems))


def _boards(
    folders: Sequence[Path], home: Path, problems: list[str]
) -> tuple[dict[Path, Record], Current, Path | None]:
    """What boards in `home` are made of: records, the configurations that count, and the file of published figures."""
    found, current = _published(folders, problems)
    if not found and problems:
        raise BadInput(problems[0])
    if not found:
        searched = ", ".join(map(str, folders))
        raise BadInput(f"no records below {searched}: publish a run first, or name another folder with --records")
    return found, current, _figures(home, folders[0].parent)


def _figures(*folders: Path) -> Path | None:
    """The file of published figures: the user's own among the configurations, else the first in `folders`."""
    from benchmark.config import find

    places = (folder / "published.yaml" for folder in folders)
    return find("published.yaml") or next((file for file in places if file.is_file()), None)


def _published(folders: Sequence[Path], problems: list[str]) -> tuple[dict[Path, Record], Current]:
    """The records in the first folder and in one's own, the others, and which configurations count: the tuned ones of
    today, all of one's own. Costs are counted as they are today; what cannot be read is named in `problems`."""
    from benchmark.config import tuned_identity
    from benchmark.leaderboard.recounted import read_recounted, recount
    from benchmark.record import read_records

    folder, *own = folders

    def setting(record: Record) -> tuple[str, str, str]:
        return record.data, record.model, record.budget

    found = read_records(folder, problems)
    settings = {setting(record) for record in found.values()}
    current = {one: {tuned} for one in settings if (tuned := tuned_identity(*one)) is not None}
    for path, record in ((path, record) for place in own for path, record in read_records(place, problems).items()):
        current.setdefault(setting(record), set()).add(record.identity)
        found[path] = record
    return recount(found, read_recounted(folder.parent / "recounted.json")), current


def _run_suite(name: str, overrides: tuple[str, ...], fresh: bool, trust: tuple[str, ...]) -> list[Outcome]:
    """Run suite `name`; `jobs=N` among the overrides says how many at a time."""
    from benchmark.config import load_suite
    from benchmark.launch import Display, default_jobs, run_suite

    given = dict(override.split("=", 1) for override in overrides if override.startswith("jobs="))
    if not given.get("jobs", "1").isdecimal():
        raise BadInput(f"jobs={given['jobs']}: give the number of processes, as in jobs=2")
    settings = [override for override in overrides if not override.startswith("jobs=")]
    experiments = _of_the_truth(settings, trust) if name == "truth" else load_suite(name, settings, trust)
    try:
        with Display() as display:
            return run_suite(experiments, int(given.get("jobs", default_jobs())), display, fresh, trust)
    except KeyboardInterrupt:
        raise Stopped("repeat the command to resume") from None


def _of_the_truth(overrides: Sequence[str], trust: Sequence[str]) -> list[Experiment]:
    """The experiments of suite `truth`; where `overrides` name data or a model, those instead."""
    from benchmark.config import compose, load_data, load_model, read_suite
    from benchmark.facts import modality

    suite = read_suite("truth")
    chosen = dict(override.split("=", 1) for override in overrides if override.startswith(("data=", "model=")))
    others = [override for override in overrides if not override.startswith(("data=", "model="))]
    pairs = [(entry.data, entry.model) for entry in suite.experiments]
    if "model" in chosen:
        kinds = load_model(chosen["model"]).structures
        places = [chosen["data"]] if "data" in chosen else dict.fromkeys(data for data, _ in pairs)
        pairs = [
            (data, chosen["model"])
            for data in places
            if "data" in chosen or modality(load_data(data).modality).structure in kinds
        ]
    elif "data" in chosen:
        pairs = [pair for pair in pairs if pair[0] == chosen["data"]]
    if not pairs:
        known = sorted({entry.data for entry in suite.experiments})
        raise BadInput(f"{' '.join(overrides)}: suite truth has nothing there: it is on {' and '.join(known)}")
    seeds = [[]] if any(other.startswith("seed=") for other in others) else [[f"seed={seed}"] for seed in suite.seeds]
    own_length = any(other.startswith(("budget", "examples.")) for other in others)
    lengths = {pair: [] if own_length else _length_of_the_truth(*pair, suite.budget) for pair in pairs}
    return [
        compose([f"data={data}", f"model={model}", f"budget={suite.budget}", *length, *seed, *others], trust)
        for seed in seeds
        for (data, model), length in lengths.items()
    ]


def _length_of_the_truth(data: str, model: str, budget: str) -> list[str]:
    """The setting that says how long an untuned model trains: on the fewest examples that a model of the suite sees."""
    from benchmark.config import load_suite, tuned_identity

    if tuned_identity(data, model, budget) is not None:
        return []
    known = [one.budget.examples for one in load_suite("truth") if one.data.name == data]
    if not known:
        return []
    fewest = min(known)
    said = f"it trains on {fewest:,} examples, or on N with budget.examples=N"
    click.echo(f"nothing is tuned for {model} on {data}: {said}", err=True)
    return [f"budget.examples={fewest}"]


def _carry_out(plan: Any, workers: int, storage: str | None) -> Any:
    """Run a study to its end, and say how its trials ended."""
    from benchmark.launch import Display
    from benchmark.sweep.search import sweep

    try:
        with Display() as display:
            summary = sweep(plan, workers, storage, display)
    except KeyboardInterrupt:
        raise Stopped("repeat the command to resume") from None
    counts = ", ".join(f"{n} {state}" for state, n in sorted(summary.counts.items()) if n)
    click.echo(f"{summary.name}: {counts}")
    return summary


def _study_pages(
    studies: Mapping[Path, Study], records: Mapping[Path, Record], current: Current, target: Path
) -> list[Path]:
    """Write what the committed studies say: two pages, and their pictures."""
    from benchmark.leaderboard.rows import select
    from benchmark.leaderboard.sensitivity import sensitivity_page, starts_of
    from benchmark.leaderboard.stability import stability_page
    from benchmark.record import write_atomic

    rows, _ = select(records, current)
    starts = starts_of(records)
    found = {"sensitivity.md": sensitivity_page(studies, starts), "stability.md": stability_page(studies, rows, starts)}
    written = []
    for name, (page, pictures) in found.items():
        written += [write_atomic(target / name, page)] if page else []
        written += [write_atomic(target / "pictures" / file, svg.decode()) for file, svg in pictures.items()]
    return written


def _show_runs(folders: list[Path]) -> int:
    """A table of the runs and where everything is. Exit code 1 where one of them did not finish, or cannot be right."""
    from benchmark.console import console
    from benchmark.leaderboard.board import boards
    from benchmark.leaderboard.rows import Run
    from benchmark.leaderboard.terminal import runs_table
    from benchmark.record import read_record, read_records, write_atomic

    records = {folder / "record.json": read_record(folder) for folder in folders}
    if not records:
        return 0
    for table in runs_table(records):
        console().print(table)
    for title, name in (("records", "record.json"), ("samples", "samples/final.*")):
        click.echo(f"{title}:")
        for file in (file for folder in folders for file in folder.glob(name)):
            click.echo(f"  {file}")
    runs = folders[0].parents[2]
    board = runs / "board"
    problems: list[str] = []
    pages = boards(read_records(runs, problems), home=board)
    click.echo("boards of all runs so far:")
    for data in sorted({record.data for record in records.values()}):
        click.echo(f"  {write_atomic(board / f'{data}.md', pages[f'{data}.md'])}")
    _named(problems)
    good = all(record.status == "finished" and Run(path, record).impossible is None for path, record in records.items())
    return int(not good)


def main() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a locale without these letters should not make it fail
            stream.reconfigure(errors="backslashreplace")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what `kill` and Slurm send stops as Ctrl-C does
    try:
        cli(standalone_mode=False)
    except BadInput as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "python -m benchmark"
        click.echo(f"error: {error.format_message()} See `{where} --help`.", err=True)
        sys.exit(2)
    except OSError as error:  # a full disk, a folder that is read-only or a file
        where = f"{error.filename}: " if error.filename else ""
        click.echo(f"error: {where}{error.strerror or error}: make room there, or name another place", err=True)
        sys.exit(2)
    except (Stopped, click.Abort) as stop:
        from benchmark.server import STOPPED

        click.echo(f"stopped; {stop}".rstrip("; "), err=True)
        sys.exit(STOPPED)


if __name__ == "__main__":
    main()
