"""A Gradio page as a shell for our own scripts: one empty column in which a script builds the app.

No work goes through Gradio's queue or state, and no text through its components, which run templates over their values.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

if TYPE_CHECKING:
    import gradio


def shell(title: str, column: str) -> gradio.Blocks:
    """The page as Gradio blocks. `column`: the id of the empty column for the script."""
    import gradio

    with gradio.Blocks(title=title, fill_width=True, analytics_enabled=False) as blocks, gradio.Column(elem_id=column):
        pass
    return blocks


def options(column: str, script: str) -> dict[str, str]:
    """Options for `mount_gradio`: load the script, remove Gradio's margins."""
    head = f"""<link rel="icon" href="/static/icon.svg" type="image/svg+xml">
<script type="module" src="{script}"></script>"""
    css = f"""
.gradio-container {{ max-width: none !important; padding: 0 !important; overflow: visible !important; }}
.gradio-container > .main {{ max-width: none !important; padding: 0 !important; }}
#{column} {{ min-width: 0 !important; }}
"""
    return {"head": head, "css": css}
