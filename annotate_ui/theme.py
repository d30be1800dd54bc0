"""The look of Gradio's own parts; the page's parts are in `static/*.css`, on the same colours."""

from __future__ import annotations

import gradio as gr

SANS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Noto Sans", "sans-serif"]
MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "Liberation Mono", "monospace"]


def plumbline_theme() -> gr.themes.Base:
    """A calm theme on system fonts, so that nothing is loaded from elsewhere."""
    theme = gr.themes.Base(
        primary_hue=gr.themes.colors.teal,
        neutral_hue=gr.themes.colors.slate,
        font=SANS,
        font_mono=MONO,
    )
    return theme.set(
        body_background_fill="#f6f7f9",
        body_background_fill_dark="#12161c",
        body_text_color="#1c2430",
        body_text_color_dark="#e4e9f0",
        background_fill_secondary="#ffffff",
        background_fill_secondary_dark="#191f27",
        border_color_primary="#d9dee6",
        border_color_primary_dark="#2d3642",
    )
