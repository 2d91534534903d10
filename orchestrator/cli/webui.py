"""webui: LLaMA-Factory's own board."""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.cli.common import download_progress, runs_dir_option, say, set_option, spec_argument, stderr_console
from orchestrator.cli.serving import until_stopped


@click.command()
@spec_argument
@set_option
@runs_dir_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), help="Port [the first free one from 8080 on].")
def webui(spec: Path, overrides: tuple[str, ...], runs_dir: Path | None, host: str, port: int | None) -> None:
    """Open LLaMA-Factory's own board with the spec's data, model and finished runs, until Ctrl-C.

    It works in webui/; make what was trained there a run with `orchestrator runs adopt webui/saves/…`.

    Example: orchestrator webui spec.yaml
    """
    from orchestrator.pipeline import workflow
    from orchestrator.runs.progress import Display
    from orchestrator.serving import webui
    from orchestrator.serving.serve import where
    from orchestrator.spec.load import load_project

    console, at = stderr_console(), where(host, port)
    project = load_project(spec, overrides, runs_dir)
    run = workflow.run_until(project, "prepare", Display(console), download_progress(console))
    folder, name = project.root / webui.FOLDER, project.spec.name
    webui.lay_out(run, project.spec, folder)
    with webui.running(folder, at) as (url, child), until_stopped(child, folder / webui.LOG):
        click.echo(url)
        say(f"model: {name}; Config path: {name}.yaml, then Load arguments. Ctrl-C ends it", err=True)
