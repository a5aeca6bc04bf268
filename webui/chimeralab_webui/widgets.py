"""Parts of a page that draw themselves: a `gr.HTML` whose content is built by an ES module of `static/`.

A widget's value belongs to the browser: what the user wrote or chose, with a growing `rev`. The server reads it in a
listener and answers in another property, `reply`; answering in the value would overwrite edits made meanwhile.
The template is fixed, so no data is ever read as markup.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import gradio as gr
from gradio.context import Context
from pydantic import ValidationError

from chimeralab import LabError
from chimeralab_webui import assets

# Unqueued: a plain request for each event. The queue's event stream closes when it runs dry, and an event that
# comes at that moment is answered with 404 and lost.
_QUIET: dict[str, Any] = {"show_progress": "hidden", "queue": False}

LIVE, IDLE = 1.0, 5.0  # seconds between two looks at the store, while something runs and while nothing does

_MOUNT = """// events: {events}
import("{base}/widget.js").then((widget) => widget.mount("{module}", {{ element, props, trigger, watch }}));"""


def widget(module: str, events: Sequence[str] = (), *, value: Any = None, **props: Any) -> gr.HTML:
    """A widget drawn by `static/<module>.js`; `events` are listened to as attributes (`widget.revise(...)`).
    Gradio's own names are not for them: it sends `change` by itself whenever a value is set.
    """
    names = " ".join(f'"{event}"' for event in events)
    props.setdefault("reply", None)
    return gr.HTML(
        value,
        html_template=f'<div class="cl-widget" data-widget="{module}"></div>',
        js_on_load=_MOUNT.format(events=names, base=assets.base(), module=module),
        apply_default_css=False,
        **props,
    )


def plot(
    title: str, *, controls: Sequence[dict[str, Any]] = (), height: int = 320, waiting: str = "", **props: Any
) -> gr.HTML:
    """A Plotly panel. `controls` are choices above it: `{name, label, options, value}`; its event is `choose`.

    Answer with `gr.update(reply={"figure": {"data": [...], "layout": {...}}})`, and `options` to offer other choices.
    """
    chosen = {control["name"]: control.get("value") for control in controls}
    return widget(
        "plot",
        ("choose",),
        value={"rev": 0, "choices": chosen},
        title=title,
        controls=list(controls),
        height=height,
        waiting=waiting,
        **props,
    )


def listen(triggers: Any, fn: Callable, inputs: Any = None, outputs: Any = None) -> None:
    """A listener as live pages need it: no progress overlay, only the newest call waits."""
    for trigger in triggers if isinstance(triggers, list) else [triggers]:
        trigger(fn, inputs or [], outputs, trigger_mode="always_last", **_QUIET)


def pace(busy: bool) -> gr.Timer:
    """A page's timer, quick while something runs."""
    return gr.Timer(LIVE if busy else IDLE)


def on_load(fn: Callable, outputs: Any) -> None:
    """`fn` runs when the page is opened; it may take a `gr.Request` to read the address."""
    page = Context.root_block
    assert page is not None, "a page is built inside gradio.Blocks"
    page.load(fn, [], outputs, **_QUIET)


def complaint(error: Exception) -> dict[str, Any]:
    """What the browser shows of an error: reason, place, remedy, and the column for pattern text."""
    if isinstance(error, LabError):
        return {
            "reason": error.reason,
            "place": error.place,
            "remedy": error.remedy,
            "column": getattr(error, "column", 0) or None,
        }
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return {
            "reason": first["msg"].removeprefix("Value error, "),
            "place": ".".join(str(part) for part in first["loc"]),
            "remedy": "",
            "column": None,
        }
    raise error


def answering(fn: Callable[..., dict[str, Any]]) -> Callable[..., Any]:
    """A listener that gives a widget's reply as a dict; a `LabError` becomes `{"error": …}` there."""

    @wraps(fn)
    def listener(value: Any, *args: Any) -> Any:
        rev = value.get("rev", 0) if isinstance(value, dict) else 0
        try:
            reply = fn(value, *args)
        except (LabError, ValidationError) as error:
            reply = {"error": complaint(error)}
        return gr.update(reply={"rev": rev, **reply})

    return listener
