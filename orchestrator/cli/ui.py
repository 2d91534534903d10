"""ui and webui: the window, and LLaMA-Factory's own board."""

from __future__ import annotations

import contextlib
from pathlib import Path

import click

from orchestrator.cli.common import download_progress, progress_display, runs_dir_option, say, set_option, spec_argument
from orchestrator.cli.serving import until_stopped
from orchestrator.lib.errors import Interrupted
from orchestrator.lib.layout import SPEC, project_of


@click.command()
@click.argument("project", default=".", type=click.Path(path_type=Path, exists=True, file_okay=False))
@runs_dir_option
@click.option("--port", type=click.IntRange(1, 65535), help="Port [the first free one from 8080 on].")
@click.option("--open", "show", is_flag=True, help="Open it in a browser.")
def ui(project: Path, runs_dir: Path | None, port: int | None, show: bool) -> None:
    """Open runs, answers, comparisons, chat and a form for new runs in a browser of this machine, until Ctrl-C.

    What is started there goes on when the window is closed.

    Example: orchestrator ui --open
    """
    import uvicorn

    from orchestrator.serving.serve import where
    from orchestrator.ui.app import application
    from orchestrator.ui.pages import Window

    at, home = where(port=port), project_of(project / SPEC)
    window = Window(home, (runs_dir or home / "runs").resolve())
    assert at.key is not None
    url = f"{at.url}/?key={at.key}"
    click.echo(url)
    say("the address holds the key: give it to nobody. Ctrl-C ends the window, not what it has started", err=True)
    if show:
        click.launch(url)
    server = application(window, at.key, at.port)
    with contextlib.suppress(KeyboardInterrupt, Interrupted):
        uvicorn.run(server, host=at.host, port=at.port, log_level="warning", access_log=False, lifespan="on")
    say("stopped", err=True)


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
    from orchestrator.serving import webui
    from orchestrator.serving.serve import where
    from orchestrator.spec.load import load_project

    at, project = where(host, port), load_project(spec, overrides, runs_dir)
    run = workflow.run_until(project, "prepare", progress_display(), download_progress())
    folder, name = project.root / webui.FOLDER, project.spec.name
    webui.lay_out(run, project.spec, folder)
    with webui.running(folder, at) as (url, child), until_stopped(child, folder / webui.LOG):
        click.echo(url)
        say(f"model: {name}; Config path: {name}.yaml, then Load arguments. Ctrl-C ends it", err=True)
