"""Figures of one run or several, as the pages Run and Compare show them: over training, context and tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import gradio as gr

from chimeralab_webui import curves, figures, over_axes
from chimeralab_webui.figures import choices
from chimeralab_webui.widgets import plot

if TYPE_CHECKING:
    from chimeralab import Lab


def curve(elem_id: str, title: str, height: int, waiting: str) -> gr.HTML:
    return plot(title, controls=curves.CONTROLS, height=height, elem_id=elem_id, waiting=waiting)


def profile(elem_id: str) -> gr.HTML:
    waiting = "Speed and memory are measured after training"
    control = figures.profile_control()
    return plot("Over context", controls=[control], height=360, elem_id=elem_id, waiting=waiting)


def tested(elem_id: str, height: int) -> gr.HTML:
    waiting = "Lengths, positions and the like are measured when training has ended"
    return plot("Test", controls=over_axes.CONTROLS, height=height, elem_id=elem_id, waiting=waiting)


def replies(
    lab: Lab,
    names: Mapping[int, str],
    held_out: Mapping[int, Mapping[str, float]],
    curve_value: Any,
    profile_value: Any,
    test_value: Any,
) -> tuple[Any, Any, Any]:
    """What the three show of the runs named, as their values choose.

    Args:
        names: by run, in the order of their colours.
        held_out: last values by run and metric, without those of training.
    """
    measure = choices(profile_value).get("measure", "decode_ms")
    return (
        gr.update(reply=_curve(lab, names, curve_value)),
        gr.update(reply={"figure": figures.profile_curves(lab.profiles(list(names)), names, measure)}),
        gr.update(reply=over_axes.reply(held_out, list(names.values()), test_value)),
    )


def _curve(lab: Lab, names: Mapping[int, str], value: Any) -> dict[str, Any]:
    """The quantity chosen; the first that was measured where the chosen one was not."""
    chosen = curves.Choices.read(value)
    offered = curves.quantities(sorted({metric for run in names for metric in lab.metrics(run)}))
    if offered and chosen.quantity not in {option["value"] for option in offered}:
        chosen.quantity = offered[0]["value"]
    return {
        "figure": curves.figure(lab, list(names), list(names.values()), chosen),
        "options": {"quantity": offered} if offered else {},
        "choices": {"quantity": chosen.quantity},
    }
