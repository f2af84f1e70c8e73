"""Review: look at results in napari, correct them, keep every correction.

::

    contents.py   what a results folder holds: images, wells, where each lies
    layers.py     an image of it as layers: pixels, labels, cells        (no Qt, no napari)
    edits.py      the log of corrections, and what labels come to by it  (no Qt, no napari)
    doubts.py, ranking.py, queue.py   the cells that are most in doubt, first   (no Qt, no napari)
    session.py    what is open, and what is done to it                   (no Qt, no napari)
    view.py       the same in a viewer: layers, keys, mouse, brush       (no Qt)
    segment_here.py, annotate.py, to_training.py, differing.py   models and trainings
    *widget.py    the windows over them

`cellseg review RESULTS` opens it; napari finds the reader and the windows in ``napari.yaml``.
Nothing here is imported by the rest of cellseg, but for the export for trainings.
"""
