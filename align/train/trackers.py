"""Experiment trackers for `train.track`: TensorBoard, Trackio, Weights & Biases, through accelerate's tracker classes.

A tracker gets the rows of metrics.jsonl. Trackio and Weights & Biases also get the recipe, a run named after its
folder, and a project: `TRACKIO_PROJECT` or `WANDB_PROJECT` in the environment, else `align`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.errors import UserError

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker


def open_tracker(name: str, folder: Path, recipe: Any) -> GeneralTracker:
    """The started tracker `name` for the run in `folder`. Raises `UserError` if its package is not installed.

    A resumed run goes on in its TensorBoard folder or Trackio run; Weights & Biases gets a new run of the same name.
    """
    from accelerate import tracking

    if name not in [str(kind) for kind in tracking.get_available_trackers()]:
        raise UserError(f"train.track: {name} is not installed. Run: pip install {name}")
    project = os.environ.get(f"{name.upper()}_PROJECT", "align")
    run: dict[str, Any] = {"name": str(folder), "config": recipe.model_dump(mode="json")}
    tracker: GeneralTracker
    if name == "tensorboard":
        tracker = tracking.TensorBoardTracker("tensorboard", folder)
    elif name == "trackio":  # embed=False: in a notebook it would start a server
        resume = "allow" if recipe.resume else "never"
        tracker = tracking.TrackioTracker(project, resume=resume, embed=False, auto_log_cpu=False, **run)
    else:
        tracker = tracking.WandBTracker(project, dir=folder, **run)
    tracker.start()
    return tracker
