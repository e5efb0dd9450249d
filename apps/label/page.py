"""The annotators' page: Gradio gives the shell, and one empty column that static/main.js draws the tool into.

Nothing of the work goes through Gradio's queue or its state, and no text of a task through its components: those run
templates over what they are given.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

if TYPE_CHECKING:
    import gradio

HOST = "align-label"  # the column's id, which main.js looks for

HEAD = """<link rel="icon" href="/static/icon.svg" type="image/svg+xml">
<script type="module" src="/static/label/main.js"></script>"""

CSS = f"""
.gradio-container {{ max-width: none !important; padding: 0 !important; overflow: visible !important; }}
#{HOST} {{ min-width: 0 !important; }}
"""


def labelling_page(title: str) -> gradio.Blocks:
    """The page as Gradio blocks."""
    import gradio

    with gradio.Blocks(title=title, fill_width=True, analytics_enabled=False) as blocks, gradio.Column(elem_id=HOST):
        pass
    return blocks
