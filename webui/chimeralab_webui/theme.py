"""Gradio's own parts in the dashboard's colours; everything else is styled by static/*.css."""

from __future__ import annotations

import gradio as gr

FONT = ["Inter", "ui-sans-serif", "system-ui", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif"]
MONO = ["ui-monospace", "SF Mono", "JetBrains Mono", "Cascadia Code", "Menlo", "Consolas", "monospace"]


def theme() -> gr.themes.Base:
    """Fonts are those of the reader's system: none is loaded."""
    base = gr.themes.Base(primary_hue="indigo", neutral_hue="zinc", font=FONT, font_mono=MONO)
    return base.set(
        body_background_fill="#f7f7f9",
        body_background_fill_dark="#101114",
        block_shadow="none",
        block_border_width="0px",
        block_background_fill="transparent",
        block_background_fill_dark="transparent",
    )
