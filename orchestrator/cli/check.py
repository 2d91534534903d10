"""check: a spec and its data, or a model before a card is rented for it."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.common import announce, json_option, print_json, say, set_option

if TYPE_CHECKING:
    from orchestrator.data.checks import Finding
    from orchestrator.models.shape import Known
    from orchestrator.models.sizing import Fit
    from orchestrator.spec.load import Project

MODELS = ("hf:", "modelscope:", "builtin:")
USUAL_ROWS = 1000
"""Training rows of a model that is looked at without a spec."""


@dataclass(frozen=True, slots=True)
class Card:
    """A GPU that is not here, and what is to be done on it."""

    memory: int
    """Bytes."""
    rows: int
    """To train on; 0 for those of the spec."""
    tokens_per_second: float


class Memory(click.ParamType):  # type: ignore[type-arg]  # generic for type checkers only
    """The memory of a GPU."""

    name = "24GB"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Bytes. Fails for what is no size."""
        from orchestrator.models.sizing import gpu_bytes

        try:
            return value if isinstance(value, int) else gpu_bytes(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command()
@click.argument("spec", default="spec.yaml", metavar="[SPEC or hf:ORG/NAME]")
@set_option
@click.option("--gpu", type=Memory(), help="Also say what fits a GPU of so much memory, which need not be here.")
@click.option("--rows", type=click.IntRange(min=1), help="Training rows, for the hours [those of the spec, or 1000].")
@click.option(
    "--tokens-per-second", type=click.FloatRange(min=1), default=1000, show_default=True, help="Speed of the GPU."
)
@json_option
def check(
    spec: str, overrides: tuple[str, ...], gpu: int | None, rows: int | None, tokens_per_second: float, as_json: bool
) -> None:
    """Validate the spec and its data, and say which template, how much memory and disk it takes; start nothing.

    Of a base model that is not here, its settings, tokenizer and sizes are fetched from the hub (a few MB, no weights).
    With a model in place of SPEC, and --gpu, that is all: what to know before a card is rented.
    Exit code 3 when the training needs something that this machine has not.

    \b
    Example: orchestrator check spec.yaml
             orchestrator check hf:Qwen/Qwen2.5-7B-Instruct --gpu 24GB
    """
    announce(f"reading {spec}", {"as_json": as_json})
    named = spec.startswith(MODELS)
    card = Card(gpu, rows or (USUAL_ROWS if named else 0), tokens_per_second) if gpu else None
    if named:
        _check_model(_project_of(spec, overrides), card, as_json)
    else:
        _check_spec(Path(spec), overrides, card, as_json)


def _check_spec(spec: Path, overrides: tuple[str, ...], card: Card | None, as_json: bool) -> None:
    from orchestrator.spec.load import load_project

    project = load_project(spec, overrides)  # before anything else is imported: a typo is answered at once

    from orchestrator.machine import requirements
    from orchestrator.models.shape import known
    from orchestrator.pipeline import estimate
    from orchestrator.spec.rules import doubts

    findings = _findings(project)
    base = known(project.spec.model.base, project.root, project.root / "runs")
    told = _examined(project, base)
    memory = estimate.memory_estimate(estimate.EstimateInput(project.spec, base.folder, None, project.root, base.model))
    if as_json:
        answer = {"spec": project.spec.model_dump(mode="json"), "project": project.root.name}
        found = [finding.to_json() for finding in findings]
        print_json({**answer, "findings": found, "model": told, "memory": estimate.to_json(memory),
                    "warnings": list(doubts(project.spec)),
                    **_sizes(project, base, card)})  # fmt: skip
    else:
        noted = [f"warning: {doubt}" for doubt in doubts(project.spec)]
        noted += [f"data: {finding.message}" for finding in findings]
        say("\n".join([f"{spec}: good", *told, *noted, *estimate.lines(memory), *_size_lines(project, base, card)]))
    requirements.require(project.spec.train, project.spec.launched)


def _findings(project: Project) -> list[Finding]:
    """What is odd about the data. Raises InputError for what is wrong with it."""
    from orchestrator.data import assemble
    from orchestrator.data.checks import require_clean
    from orchestrator.pipeline.plan import mode_of

    wanted = replace(assemble.Wanted.of_spec(project.spec, project.root), mode=mode_of(project))
    findings = assemble.check(wanted)
    require_clean(findings, wanted.data.accept)
    return findings


def _check_model(project: Project, card: Card | None, as_json: bool) -> None:
    """What there is to know of a model without any spec. Raises MissingError where its hub does not answer."""
    from orchestrator.lib.errors import MissingError
    from orchestrator.models.shape import known

    base = known(project.spec.model.base, project.root)
    if base.problem:
        message, _, hint = base.problem.partition("\n")
        raise MissingError(message, hint)
    told = _examined(project, base)
    if as_json:
        print_json({"base": project.spec.model.base, "model": told, **_sizes(project, base, card)})
    else:
        say("\n".join([project.spec.model.base, *told, *_size_lines(project, base, card)]))


def _project_of(base: str, overrides: tuple[str, ...]) -> Project:
    """A project that has a model and no data."""
    import tempfile

    from orchestrator.spec.load import load_project

    quoted = base.replace("'", "")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "spec.yaml"
        (Path(folder) / "none.json").write_text("[]", encoding="utf-8")
        file.write_text(
            f"name: none\nmodel: {{base: '{quoted}'}}\ndata: {{train: none.json, eval_fraction: 0.2}}\n"
            "export: {gguf: [f16, q8_0, q4_k_m]}\n",
            encoding="utf-8",
        )
        return replace(load_project(file, overrides), root=Path.cwd(), runs_dir=Path("runs"))


def _examined(project: Project, base: Known) -> list[str]:
    """What there is to know about the base model: its template, what will be served, what is unusual about it."""
    from orchestrator.chat_template.registry import TemplateName
    from orchestrator.models import llamacpp, sources
    from orchestrator.models.examine import require_fit
    from orchestrator.pipeline.plan import resolve_template
    from orchestrator.report.checked import template_lines

    spec, name = project.spec, project.spec.model.base
    template = resolve_template(spec, project.runs_dir)
    origin = sources.template_origin(name, spec.model.template)
    if form := TemplateName.of(template).tool_format:
        origin += f", with tools and calls in the form {form}, which servers read"
    if base.folder is None:
        return [f"template: {template}, {origin}", *base.problem.splitlines()]
    sources.require_mergeable(base.folder, name)
    remarks = require_fit(base.folder, template, llamacpp.checkout(spec.llama_cpp), name)
    return [*template_lines(spec, base.folder, template, origin), *remarks]


def _sizes(project: Project, base: Known, card: Card | None) -> dict[str, Any]:
    """Disk and fit as JSON; None where the model's size is not known."""
    disk = _disk(project, base)
    fitting = _fits(project, base, card)
    return {"disk": asdict(disk) if disk else None, "gpu": [asdict(fit) for fit in fitting] if card else None}


def _size_lines(project: Project, base: Known, card: Card | None) -> list[str]:
    from orchestrator.models.sizing import Work
    from orchestrator.report.checked import disk_lines, fit_lines, time_line

    spec = project.spec
    disk = _disk(project, base)
    lines = list(disk_lines(disk)) if disk else []
    if card and base.model:
        tokens = int(spec.training["cutoff_len"])
        work = Work(card.rows or _rows(project), tokens, float(spec.training["num_train_epochs"]))
        lines += fit_lines(_fits(project, base, card), card.memory, tokens)
        lines.append(time_line(work, card.tokens_per_second))
    return lines


def _disk(project: Project, base: Known) -> Any:
    from orchestrator.lib.files import cache_folder, nearest
    from orchestrator.models.sizing import run_bytes
    from orchestrator.report.checked import Disk

    if base.model is None:
        return None
    cache = nearest(base.folder if base.download and base.folder else cache_folder())
    root = nearest(project.root)
    shared = root.stat().st_dev == cache.stat().st_dev
    parts = run_bytes(base.model, project.spec.export.gguf)
    return Disk(parts, shutil.disk_usage(root).free, base.download, shutil.disk_usage(cache).free, shared)


def _fits(project: Project, base: Known, card: Card | None) -> list[Fit]:
    from orchestrator.models.sizing import fits

    if card is None or base.model is None:
        return []
    training = project.spec.training
    return fits(base.model, training, int(training["cutoff_len"]), card.memory)


def _rows(project: Project) -> int:
    """Training rows of the spec, as they are read."""
    from orchestrator.data import assemble

    return len(assemble.assemble(assemble.Wanted.of_spec(project.spec, project.root)).train)
