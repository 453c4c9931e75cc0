"""What leaves this machine: records and studies to be committed, runs and views in Weights & Biases."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from benchmark.cli import options


@click.command()
@options.run_folder
@options.to("leaderboards")
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


@click.command()
@click.argument("files", metavar="RECORD...", nargs=-1, required=True, type=options.PATH)
@options.trust
def check(files: tuple[Path, ...], trust: tuple[str, ...]) -> None:
    """Say whether submitted records are well-formed; nothing that they name is imported.

    With --trust, the protocols of your own metrics are checked too.
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


@click.command()
@click.option("--entity", help="Whose W&B account saves the views; without it they are only written down.")
@options.to("build/dashboard.json")
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


@click.command()
@click.argument("runs", type=options.PATH, default=Path("runs"))
def sync(runs: Path) -> None:
    """Upload the offline W&B runs below RUNS (runs/ by default)."""
    from benchmark.tracking import sync

    click.echo(f"{sync(runs)} uploaded")


@click.command()
@options.to("docs")
@options.trust
def docs(target: Path, trust: tuple[str, ...]) -> None:
    """Write what every number means, from the files of metrics and modalities: metrics.md.

    With --trust, it also says what your own metrics need of a model.
    """
    from benchmark.build import load_metrics
    from benchmark.record import write_atomic
    from benchmark.report.metrics import metrics_page

    needs = {name: metric.needs for name, metric in load_metrics(trust).items()}
    click.echo(write_atomic(target / "metrics.md", metrics_page(needs)))
