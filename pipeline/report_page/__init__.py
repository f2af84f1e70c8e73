"""The page of a report: markup, style and scripts, which `cellseg.pipeline.report` fills."""
