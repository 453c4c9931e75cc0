"""The dashboard in Weights & Biases, from its definition in `dashboard.yaml`.

Views can be built and written down without an account; saving them needs one. Runs that are uploaded later fit them,
since every run logs the same names.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from benchmark.config import read_yaml
from benchmark.facts import ModalityFact, metrics_of
from benchmark.spec import BadInput

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace

FILE = Path(__file__).with_name("dashboard.yaml")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Panel(_Strict):
    """Bars of final scores, lines over examples seen, media, or one final score against another."""

    kind: Literal["bar", "line", "media", "scatter"]
    show: tuple[str, ...]
    x: str | None = None


class Section(_Strict):
    """Panels on data of one modality; `None`: of any."""

    name: str
    panels: tuple[Panel, ...]
    modality: str | None = None


class View(_Strict):
    """Runs grouped by settings of their configuration; `each`: one view for each dataset."""

    name: str
    group: tuple[str, ...]
    each: Literal["data"] | None = None


class Dashboard(_Strict):
    """`media` are the pictures that runs log, `costs` what quality is drawn against. Sections on the likelihood, the
    samples and the cost of each modality come before the `sections` that are written down."""

    views: tuple[View, ...]
    media: tuple[str, ...]
    costs: tuple[str, ...]
    sections: tuple[Section, ...]

    def all_sections(self, kinds: Iterable[ModalityFact]) -> list[Section]:
        """The sections of each modality, then those of any."""
        return [section for kind in kinds for section in self._sections_of(kind)] + list(self.sections)

    def _sections_of(self, kind: ModalityFact) -> Iterator[Section]:
        def panel(shape: Literal["bar", "line"], *names: str) -> Panel:
            return Panel(kind=shape, show=names)

        def section(what: str, *panels: Panel) -> Section:
            return Section(name=f"{what} of {kind.title}", panels=panels, modality=kind.name)

        logged = metrics_of(kind)
        likelihood, samples = ([name for name in of if name in logged] for of in (kind.likelihood, kind.samples))
        by_likelihood = [name for name in kind.select if logged[name].of == "likelihood"]
        by_samples = [name for name in kind.select if name not in by_likelihood]
        yield section(
            "likelihood",
            *(panel("bar", f"test/{name}") for name in likelihood),
            *(panel("line", f"val/{name}") for name in by_likelihood),
        )
        yield section(
            "samples",
            *(Panel(kind="media", show=(name,)) for name in self.media),
            *(panel("bar", f"test/{name}") for name in samples),
            *(panel("line", f"val/{name}") for name in by_samples),
        )
        yield section(
            "cost and quality",
            *(
                Panel(kind="scatter", x=f"cost/{cost}", show=(f"test/{name}",))
                for name in (*likelihood[:1], *samples[:1])
                for cost in self.costs
            ),
        )

    def names(self, kinds: Iterable[ModalityFact]) -> set[str]:
        """Everything that it shows, by the name under which runs log it."""
        panels = [panel for section in self.all_sections(kinds) for panel in section.panels]
        return {name for panel in panels for name in (*panel.show, panel.x) if name is not None}


def read_dashboard(file: Path = FILE) -> Dashboard:
    """The definition in a file, the shipped one by default. Raises `BadInput` where it is malformed."""
    try:
        return Dashboard.model_validate(read_yaml(file))
    except ValidationError as error:
        first = error.errors()[0]
        raise BadInput(f"{file}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def workspaces(dashboard: Dashboard, data: Mapping[str, ModalityFact], entity: str, project: str) -> list[Workspace]:
    """The views as W&B's objects; `data` maps each dataset to its modality. No account is needed to build them."""
    made = []
    everything = dashboard.all_sections({kind.name: kind for kind in data.values()}.values())
    for view in dashboard.views:
        for name, kind in data.items() if view.each == "data" else ((None, None),):
            sections = [one for one in everything if kind is None or one.modality in (None, kind.name)]
            made.append(_workspace(view, sections, name, entity, project))
    return made


def _workspace(view: View, sections: Sequence[Section], data: str | None, entity: str, project: str) -> Workspace:
    """A view of all runs, or of those on one dataset. Trials of sweeps stay out: they are many."""
    import wandb_workspaces.expr as expr
    import wandb_workspaces.workspaces as ws

    filters = [expr.Metric("JobType").isin(["run"])]
    if data is not None:
        filters.append(expr.Config("data.value.name").isin([data]))  # as W&B writes a nested setting
    name = view.name.format(data=data)
    workspace = ws.Workspace(
        entity=entity,
        project=project,
        name=name,
        sections=[_section(one) for one in sections],
        runset_settings=ws.RunsetSettings(filters=expr.And(*filters), groupby=[expr.Config(key) for key in view.group]),
    )
    digest = hashlib.sha256(name.encode()).hexdigest()[:11]
    workspace._internal_name = f"nw-{digest}-v"  # W&B's key: saving it again replaces the view
    return workspace


def _section(section: Section) -> Any:
    import wandb_workspaces.workspaces as ws

    return ws.Section(name=section.name, panels=[_panel(panel) for panel in section.panels], is_open=True)


def _panel(panel: Panel) -> Any:
    import wandb_workspaces.reports.v2.interface as wr

    title = " and ".join(panel.show) if panel.x is None else f"{panel.show[0]} against {panel.x}"
    match panel.kind:
        case "bar":
            return wr.BarPlot(title=title, metrics=list(panel.show))
        case "line":
            return wr.LinePlot(title=title, x="Step", y=list(panel.show), title_x="examples seen")
        case "media":
            return wr.MediaBrowser(title=title, media_keys=list(panel.show))
        case "scatter":
            x, y = (wr.SummaryMetric(name) for name in (panel.x or "", panel.show[0]))
            return wr.ScatterPlot(title=title, x=x, y=y, log_x=True)


def as_json(views: Sequence[Workspace]) -> str:
    """What W&B would store: name → specification of each view."""
    models = {view.name: view._to_model().spec for view in views}
    content = {
        name: json.loads(spec.model_dump_json(by_alias=True, exclude_none=True)) for name, spec in models.items()
    }
    return json.dumps(content, indent=1) + "\n"


def save(views: Sequence[Workspace]) -> list[str]:
    """Save the views to W&B; returns their addresses. Raises `BadInput` where W&B refuses."""
    import wandb

    try:
        return [view.save().url for view in views]
    except (wandb.Error, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise BadInput(f"W&B did not take the views: {reason}; log in with `wandb login`, check --entity") from error
