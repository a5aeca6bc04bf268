"""The web application: a FastAPI parent with the JSON API, the scripts and styles, and Gradio mounted at `/ui`."""

from __future__ import annotations

import os
import socket
import threading
import traceback
import warnings
from typing import TYPE_CHECKING, Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import gradio as gr
from fastapi import FastAPI
from fastapi.responses import RedirectResponse

from chimeralab import LabError, __version__
from chimeralab_webui import api, assets
from chimeralab_webui.head import InsertHead
from chimeralab_webui.theme import theme
from chimeralab_webui.widgets import listen, widget

if TYPE_CHECKING:
    import uvicorn

    from chimeralab import Lab, Page

UI = "/ui"
HOME = "compose"  # the path of the page at the root, where links to a fork or a pattern lead
SESSIONS = 200  # states kept on the server; a pinned stack is all that a state holds
OFF_THE_BAR = {"run"}  # opened from another page, with an id


def make_app(lab: Lab) -> FastAPI:
    """The dashboard of one laboratory; serve it with any ASGI server."""
    # Swagger's page loads scripts from another host, so the schema is served without it.
    app = FastAPI(
        title="Chimera Lab",
        version=__version__,
        openapi_url="/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    app.include_router(api.router(lab), prefix="/api/v1")
    assets.mount(app)
    app.add_middleware(InsertHead, path=UI, markup=assets.head())

    @app.get("/", include_in_schema=False)
    def home() -> RedirectResponse:
        return RedirectResponse(f"{UI}/")

    demo = _pages(lab)
    demo.state_session_capacity = SESSIONS
    demo.queue(default_concurrency_limit=8, max_size=1024, api_open=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="SSR mode is not supported")  # it is not wanted either
        return gr.mount_gradio_app(app, demo, path=UI, theme=theme(), footer_links=[], run_history=False, pwa=False)


def serve(lab: Lab, host: str = "127.0.0.1", port: int = 7860, over: threading.Event | None = None) -> None:
    """Serve the dashboard until it is interrupted, or until `over` is set.

    Raises:
        LabError: the address cannot be taken.
    """
    import uvicorn

    try:
        sock = socket.create_server((host, port), backlog=128)
    except OSError as error:
        raise LabError(
            f"cannot listen on {host}:{port}: {error.strerror or error}",
            place="dashboard",
            remedy="Choose another port with --port, or stop what uses this one",
        ) from None
    with sock:
        server = uvicorn.Server(uvicorn.Config(make_app(lab), log_level="warning"))
        if over is not None:
            threading.Thread(target=_stop, args=(server, over), name="end of serving", daemon=True).start()
        server.run(sockets=[sock])


def _stop(server: uvicorn.Server, over: threading.Event) -> None:
    over.wait()
    server.should_exit = True


def _pages(lab: Lab) -> gr.Blocks:
    pages = sorted(lab.pages(), key=lambda page: page.path != HOME)
    if not pages:
        raise LabError(
            "no plugin gives a page", place="dashboard", remedy="`chimeralab plugins` says which are broken, and why"
        )
    contents = [_content(lab, page) for page in pages]
    with gr.Blocks(title="Chimera Lab", analytics_enabled=False, fill_width=True) as demo:
        _page(lab, 0, pages, contents)
    for index, page in enumerate(pages[1:], start=1):
        with demo.route(page.name, f"/{page.path}", show_in_navbar=False):
            _page(lab, index, pages, contents)
    # What others may call is `/api/v1`: listeners of pages, a plugin's too, serve their page alone.
    for listener in demo.fns.values():
        listener.api_visibility = "private"
    return demo


def _page(lab: Lab, index: int, pages: list[Page], contents: list[gr.Blocks]) -> None:
    _header(lab, pages[index], pages)
    with gr.Column(elem_classes=["cl-page", f"cl-page-{pages[index].path}"]):
        contents[index].render()


def _content(lab: Lab, page: Page) -> gr.Blocks:
    """The page built apart from the others, so that one that raises leaves nothing behind but its traceback."""
    try:
        with gr.Blocks(analytics_enabled=False) as content:
            page.build(lab)
    except Exception:
        with gr.Blocks(analytics_enabled=False) as content:
            widget("broken_page", name=page.name, path=page.path, traceback=traceback.format_exc())
    return content


def _header(lab: Lab, page: Page, pages: list[Page]) -> None:
    first = pages[0]
    links = [
        {"name": p.name, "path": p.path, "href": f"{UI}/" if p is first else f"{UI}/{p.path}"}
        for p in pages
        if p.path not in OFF_THE_BAR
    ]
    header = widget("header", ("ask",), pages=links, current=page.path, elem_classes=["cl-top"])

    def ask() -> Any:
        return gr.update(reply=_cluster(lab))

    listen(header.ask, ask, None, header)


def _cluster(lab: Lab) -> dict[str, Any]:
    """The cluster in a few words, for the header."""
    try:
        status = lab.cluster()
    except LabError as error:
        return {"text": "store away", "title": str(error), "bad": True}
    if status is None:
        return {"text": "no cluster yet", "title": "Runs wait until a cluster is started", "bad": True}
    parts = [f"{status.cpus:g} CPUs"] + ([f"{status.gpus:g} GPUs"] if status.gpus else [])
    if not status.alive:
        return {"text": "cluster silent", "title": f"Ray at {status.address} has not reported lately", "bad": True}
    return {"text": " · ".join(parts), "title": f"Ray at {status.address}, {status.nodes} node(s)", "bad": False}
