"""ui: the window."""

from __future__ import annotations

import contextlib
from pathlib import Path

import click

from orchestrator.cli.common import runs_dir_option, say


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

    from orchestrator.lib.errors import Interrupted
    from orchestrator.lib.layout import SPEC, project_of
    from orchestrator.serving.serve import where
    from orchestrator.ui.app import application
    from orchestrator.ui.pages import Window

    at, home = where(port=port), project_of(project / SPEC)
    window = Window(home, (runs_dir or home / "runs").resolve())
    assert at.key is not None
    url = f"http://{at.host}:{at.port}/?key={at.key}"
    click.echo(url)
    say("the address holds the key: give it to nobody. Ctrl-C ends the window, not what it has started", err=True)
    if show:
        click.launch(url)
    server = application(window, at.key, at.port)
    with contextlib.suppress(KeyboardInterrupt, Interrupted):
        uvicorn.run(server, host=at.host, port=at.port, log_level="warning", access_log=False, lifespan="on")
    say("stopped", err=True)
