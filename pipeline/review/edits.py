"""Correcting cells without a window: all that review does to data, for scripts and for napari.

::

    Editor(results, image)      correct the cells of an image; every edit goes to its log at once
    apply(results)              change labels, table and summaries on disk as the logs say
    merge_logs(paths)           what several reviewers agree on, and where they do not

See docs/edits.md.
"""

from __future__ import annotations

from cellseg.pipeline.change import Change
from cellseg.pipeline.review.apply import ApplyEdits, apply, pending_edits
from cellseg.pipeline.review.edit import Edit
from cellseg.pipeline.review.editor import Editor
from cellseg.pipeline.review.merge_logs import Conflict, Merged, merge_logs
from cellseg.pipeline.review.take import Taking, plan_taking

__all__ = [
    "ApplyEdits",
    "Change",
    "Conflict",
    "Edit",
    "Editor",
    "Merged",
    "Taking",
    "apply",
    "merge_logs",
    "pending_edits",
    "plan_taking",
]
