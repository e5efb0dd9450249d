"""A page of our own scripts: Gradio gives the shell, and one empty column that a script draws the tool into.

Nothing of the work goes through Gradio's queue or its state, and no text through its components: those run templates
over what they are given.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

if TYPE_CHECKING:
    import gradio


def shell(title: str, column: str) -> gradio.Blocks:
    """The page as Gradio blocks. `column`: the id of the empty column, which the script looks for."""
    import gradio

    with gradio.Blocks(title=title, fill_width=True, analytics_enabled=False) as blocks, gradio.Column(elem_id=column):
        pass
    return blocks


def options(column: str, script: str) -> dict[str, str]:
    """What `mount_gradio` needs beside: the script, and no margins of Gradio's."""
    head = f"""<link rel="icon" href="/static/icon.svg" type="image/svg+xml">
<script type="module" src="{script}"></script>"""
    css = f"""
.gradio-container {{ max-width: none !important; padding: 0 !important; overflow: visible !important; }}
.gradio-container > .main {{ max-width: none !important; padding: 0 !important; }}
#{column} {{ min-width: 0 !important; }}
"""
    return {"head": head, "css": css}
