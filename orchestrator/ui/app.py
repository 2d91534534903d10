"""The application: which address is answered by which function (`ADDRESSES`, at the end), and how errors look."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, urlencode

from orchestrator.lib.errors import InputError, OrchestratorError, of_system
from orchestrator.lib.render import PACKAGED
from orchestrator.lib.secrecy import redacted
from orchestrator.serving.guard import Guard
from orchestrator.ui import pages, start, talk
from orchestrator.ui.door import Door
from orchestrator.ui.pages import Window

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

STATIC = {
    "htmx.min.js": ("vendored/htmx.min.js", "text/javascript"),
    "report.js": ("report.js", "text/javascript"),
    "report.css": ("report.css", "text/css"),
    "ui.js": ("ui.js", "text/javascript"),
    "ui.css": ("ui.css", "text/css"),
}
MOST_BYTES = 1 << 20
"""Of what a form may send."""

Fields = Mapping[str, str]
Shown = Callable[[Window, "Request", Fields], Any]
"""What a page is made by: a text is shown, an address in a tuple is gone to, a Response is sent."""


def application(window: Window, key: str, port: int, servers: talk.Servers | None = None) -> Any:
    """The ASGI application behind its guard and its door."""
    from starlette.applications import Starlette
    from starlette.routing import Route

    routes = [Route(path, _answering(window, shown), methods=[method]) for method, path, shown in ADDRESSES]
    app = Starlette(routes=routes, lifespan=_lifespan, exception_handlers={404: _nowhere(window)})
    app.state.servers = servers or talk.Servers()
    return Guard(Door(app, key, port))


@asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    yield
    app.state.servers.close()


def _answering(window: Window, shown: Shown) -> Callable[[Request], Any]:
    """An endpoint: reads the form, calls the function in a thread, and shows an error as a page of its own."""
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import HTMLResponse, RedirectResponse, Response

    async def endpoint(request: Request) -> Response:
        try:
            given = await _fields(request)
            made = await run_in_threadpool(shown, window, request, given)
        except OrchestratorError as error:
            return HTMLResponse(_problem(window, error), status_code=404 if isinstance(error, InputError) else 409)
        except OSError as error:
            return HTMLResponse(_problem(window, of_system(error)), status_code=409)
        if isinstance(made, Response):
            return made
        return RedirectResponse(made[0], status_code=303) if isinstance(made, tuple) else HTMLResponse(made)

    return endpoint


async def _fields(request: Request) -> Fields:
    """What a form sent; a query where there is none. A name that is sent several times has its last value."""
    if request.method != "POST":
        return dict(request.query_params)
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MOST_BYTES:
            raise InputError("that is too much for a form", "Put it into a file.")
    return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))


def _problem(window: Window, error: OrchestratorError) -> str:
    told = {"message": redacted(error.message), "hint": error.hint}
    return window.render("ui_message.html.j2", **told, where="")


def _nowhere(window: Window) -> Callable[..., Any]:
    from starlette.responses import HTMLResponse

    async def missing(request: Request, error: Exception) -> HTMLResponse:
        return HTMLResponse(_problem(window, InputError("there is no such page")), status_code=404)

    return missing


def _name(request: Request) -> str:
    return str(request.path_params["name"])


def _log_url(name: str) -> str:
    return f"/started/{quote(name)}"


def _answers(window: Window, request: Request, asked: Fields) -> str:
    run = window.run(_name(request))
    kept = {key: value for key, value in asked.items() if key != "page" and value}
    found = pages.answers(run, asked)
    return window.render("ui_answers.html.j2", run=run.record, **found, query=urlencode(kept), where="runs")


def _export(window: Window, request: Request, _: Fields) -> Any:
    """The single file, which is sent to be kept: opened here it would be under this window's policy, not its own."""
    from starlette.responses import FileResponse

    from orchestrator.report import write

    name = _name(request)
    window.run(name)
    return FileResponse(write(window.folder(name)), filename=f"{name}.html", media_type="text/html")


def _chat(window: Window, request: Request, asked: Fields) -> str:
    run = window.run(_name(request))
    offered = talk.offered(run)
    a, b = asked.get("a") or (offered or [""])[-1], asked.get("b", "")
    said = {"offered": offered, "a": a, "b": b, "talks": [], "before": "{}"}
    return window.render("ui_chat.html.j2", run=run.record, **said, where="runs")


def _said(window: Window, request: Request, given: Fields) -> str:
    run, servers = window.run(_name(request)), request.app.state.servers
    a, b = given.get("a", ""), given.get("b", "")
    asked = list(dict.fromkeys(filter(None, (a, b))))
    talks = talk.say(servers, run, asked, given.get("text", ""), given.get("before", ""))
    before = json.dumps({one["artifact"]: one["turns"] for one in talks}, ensure_ascii=False)
    said = {"offered": talk.offered(run), "a": a, "b": b, "talks": talks, "before": before}
    return window.render("ui_chat.html.j2", run=run.record, **said, where="runs")


def _stop(window: Window, request: Request, _: Fields) -> tuple[str]:
    start.stop(window, _name(request))
    return (request.url.path.removesuffix("/stop"),)


def _compare(window: Window, request: Request, asked: Fields) -> str:
    return pages.compare_page(window, request.query_params.getlist("run"), asked.get("artifact") or "tuned")


def _new(window: Window, request: Request, asked: Fields) -> str:
    known = start.specs(window.project)
    spec = asked.get("spec") or (known or [""])[0]
    return _form(window, spec, start.form(window, spec), asked.get("what", "run"))


def _changed(window: Window, request: Request, given: Fields) -> str:
    spec, more = given.get("spec", ""), given.get("more", "")
    values = {key: given.get(key, "") for key in start.FIELDS}
    try:
        edit = start.edit(window, spec, values, more)
    except InputError as error:
        return _form(window, spec, values, given.get("what", "run"), more, problem=error.message)
    return _form(window, spec, values, given.get("what", "run"), more, edit=edit)


def _form(window: Window, spec: str, values: Fields, what: str, more: str = "", **told: Any) -> str:
    shown = {"specs": start.specs(window.project), "spec": spec, "what": what, "fields": start.FIELDS, "values": values}
    return window.render("ui_new.html.j2", **shown, **{"more": more, "edit": None, "problem": "", **told}, where="new")


def _start(window: Window, request: Request, given: Fields) -> tuple[str]:
    changes = [line for line in given.get("changes", "").splitlines() if line]
    name = start.begin(window, given.get("what", ""), given.get("spec", ""), changes, given.get("seen", ""))
    return (_log_url(name),)


def _runs(window: Window, request: Request, _: Fields) -> str:
    listed = pages.listing(window)
    return window.render("ui_runs.html.j2", **listed, started=start.started(window), where="runs")


def _started(window: Window, request: Request, _: Fields) -> str:
    listed = pages.listing(window)
    running = [line["id"] for line in listed["runs"] if line["status"] == "running"]
    name = _name(request)
    told = {"name": name, "said": start.log(window, name), "running": running, "live": True}
    return window.render("ui_started.html.j2", **told, where="runs")


def _static(window: Window, request: Request, _: Fields) -> Any:
    from starlette.responses import FileResponse

    if _name(request) not in STATIC:
        raise InputError("there is no such file")
    path, kind = STATIC[_name(request)]
    return FileResponse(next(folder / path for folder in PACKAGED if (folder / path).is_file()), media_type=kind)


ADDRESSES: tuple[tuple[str, str, Shown], ...] = (
    ("GET", "/", _runs),
    ("GET", "/run/{name}", lambda window, request, _: pages.run_page(window, _name(request))),
    ("GET", "/run/{name}/answers", _answers),
    ("GET", "/run/{name}/export", _export),
    ("GET", "/run/{name}/chat", _chat),
    ("POST", "/run/{name}/chat", _said),
    ("POST", "/run/{name}/stop", _stop),
    ("POST", "/run/{name}/resume", lambda window, request, _: (_log_url(start.go_on(window, _name(request))),)),
    ("GET", "/sweep/{name}", lambda window, request, _: pages.sweep_page(window, _name(request))),
    ("POST", "/sweep/{name}/stop", _stop),
    ("GET", "/compare", _compare),
    ("GET", "/new", _new),
    ("POST", "/new", _changed),
    ("POST", "/start", _start),
    ("GET", "/started/{name}", _started),
    ("GET", "/static/{name}", _static),
)
"""Method, path, and what answers it."""
