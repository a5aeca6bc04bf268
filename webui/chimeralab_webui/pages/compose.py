"""Compose: a stack by clicks or text, its cost at once, and the form that launches it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import gradio as gr
from pydantic import ValidationError

from chimeralab import LabError, RunSpec, StackSpec
from chimeralab_webui import drafts, figures, importing
from chimeralab_webui.launching import LaunchForm, form_of
from chimeralab_webui.widgets import answering, complaint, listen, on_load, plot, widget

if TYPE_CHECKING:
    from chimeralab import Lab

BASIC = ["steps", "batch_size", "lr"]
LABELS = {"batch_size": "Batch size", "lr": "Learning rate", "eval_every": "Evaluate every", "clip": "Gradient clip"}


def build(lab: Lab) -> None:
    presets = lab.presets()
    with gr.Column(elem_classes=["cl-compose"]):
        with gr.Column(elem_classes=["cl-panel", "cl-area-editor"]):
            with gr.Row(elem_classes=["cl-panel-top"]):
                gr.HTML('<h1 class="cl-title">Compose</h1>', apply_default_css=False)
                imports = widget(
                    "import_dialog",
                    ("read",),
                    palette=[asdict(entry) for entry in lab.palette()],
                    sources=importing.sources(),
                    elem_id="import",
                )
            editor = widget(
                "stack_editor",
                ("revise",),
                palette=[asdict(entry) for entry in lab.palette()],
                presets=[asdict(preset) for preset in presets],
                schema=StackSpec.model_json_schema(),
                elem_id="stack",
            )
        with gr.Column(elem_classes=["cl-panel", "cl-area-cost"]):
            costs = widget("cost_panel", ("pin", "unpin"), elem_id="cost")
            curve = plot(
                "State over context", height=230, elem_id="state-curve", waiting="Add a layer to see its state"
            )
        with gr.Column(elem_classes=["cl-panel", "cl-area-launch"]):
            launch = widget(
                "launch_form",
                ("revise", "launch"),
                schema=RunSpec.model_json_schema(),
                tasks=[asdict(task) for task in lab.tasks()],
                kernels=_tiers(lab),
                basic=BASIC,
                labels=LABELS,
                elem_id="launch",
            )
    pinned = gr.State(None)

    def reply(value: Any) -> Any:
        return gr.update(reply=drafts.read(lab, value)[1])

    def price(draft: Any, form: Any, pin: StackSpec | None) -> tuple[Any, Any]:
        stack, answer = drafts.read(lab, draft)
        rev = answer["rev"] + (form or {}).get("rev", 0)
        if stack is None:
            return gr.update(reply={"rev": rev, "report": None, "error": answer["error"]["reason"]}), gr.skip()
        return _priced(lab, stack, form, pin, rev)

    def pin(draft: Any, form: Any, previous: StackSpec | None) -> tuple[Any, Any, Any]:
        stack = drafts.read(lab, draft)[0] or previous
        return stack, *price(draft, form, stack)

    def unpin(draft: Any, form: Any) -> tuple[Any, Any, Any]:
        return None, *price(draft, form, None)

    @answering
    def submit(form: Any, draft: Any) -> dict[str, Any]:
        stack = drafts.Draft.model_validate(draft).stack()
        specs = LaunchForm.model_validate(form).specs(stack)
        launched: list[dict[str, Any]] = []
        for spec in specs:
            try:
                run = lab.submit(spec)
            except LabError as error:
                return {"launched": launched, "error": complaint(error)}
            launched.append({"id": run, "name": lab.run(run).name})
        return {"launched": launched, "error": None}

    @answering
    def read_import(form: Any) -> dict[str, Any]:
        return importing.read(lab, form)

    def open_address(request: gr.Request) -> tuple[Any, Any]:
        value, answer, form = _opened(lab, dict(request.query_params), presets)
        return gr.update(value=value, reply=answer), gr.update(value=form) if form else gr.skip()

    def price_address(request: gr.Request) -> tuple[Any, Any]:
        value, _, form = _opened(lab, dict(request.query_params), presets)
        return price(value, form, None)

    price(_opened(lab, {}, presets)[0], None, None)  # the first price loads much: here, not before a visitor's eyes
    listen(editor.revise, reply, editor, editor)
    listen(imports.read, read_import, imports, imports)
    listen([editor.revise, launch.revise], price, [editor, launch, pinned], [costs, curve])
    listen(costs.pin, pin, [editor, launch, pinned], [pinned, costs, curve])
    listen(costs.unpin, unpin, [editor, launch], [pinned, costs, curve])
    listen(launch.launch, submit, [launch, editor], launch)
    on_load(open_address, [editor, launch])
    on_load(price_address, [costs, curve])  # apart: the stack is drawn before it is priced


def _tiers(lab: Lab) -> dict[str, list[str]]:
    """The kernels that can run here, by op."""
    found: dict[str, list[str]] = {}
    for kernel in lab.kernels():
        if not kernel.reason:
            found.setdefault(kernel.op, []).append(kernel.tier)
    return found


def _priced(lab: Lab, stack: StackSpec, form: Any, pin: StackSpec | None, rev: int) -> tuple[Any, Any]:
    """Replies of the cost panel and its curve."""
    report, warning = _report(lab, stack, form)
    other = _report(lab, pin, form)[0] if pin is not None else None
    # Two listeners may price at once: the browser keeps the answer to the newest draft and form.
    shown = {
        "rev": rev,
        "report": report.model_dump(mode="json"),
        "pinned": other.model_dump(mode="json") if other else None,
        "pinned_text": pin.text if pin else "",
        "error": warning,
    }
    return gr.update(reply=shown), gr.update(reply={"rev": rev, "figure": figures.state_curve(report, other)})


def _report(lab: Lab, stack: StackSpec, form: Any) -> tuple[Any, str]:
    """The cost of training as the form says; where that cannot be launched, of the stack alone, and why."""
    try:
        return lab.preview(LaunchForm.model_validate(form or {}).specs(stack)[0]), ""
    except (LabError, ValidationError) as error:
        found = complaint(error)
        return lab.cost(stack), f"{found['place']}: {found['reason']}" if found["place"] else found["reason"]


def _opened(lab: Lab, query: dict[str, str], presets: list) -> tuple[dict, dict, dict | None]:
    """What the address asks for: `fork=ID` (a run's stack and form), `pattern=TEXT&d_model=…`, or the first preset."""
    form = None
    value: dict[str, Any] = {"rev": 0, "layers": None, "text": "", "settings": {}}
    if query.get("fork"):
        try:
            spec = lab.spec(lab.find(query["fork"]))
        except LabError as error:
            return value, {"rev": 0, "error": complaint(error) | {"layer": None, "setting": None}}, None
        value, form = drafts.opened(spec.stack), form_of(spec)
    elif "pattern" in query:
        settings = {name: query[name] for name in StackSpec.model_fields if name in query and name != "layers"}
        value |= {"text": query["pattern"], "settings": settings}
    elif presets:
        value |= {"text": presets[0].pattern, "settings": dict(presets[0].settings)}
    else:
        entries = [entry for entry in lab.palette() if entry.kind == "mixer"]
        value |= {"text": f"{entries[0].name} x6" if entries else ""}
    stack, answer = drafts.read(lab, value)
    answer["query"] = None  # an address that was just opened stays as it is
    return (drafts.opened(stack) if stack else value), answer, form
