"""Workflow files that ship with cellseg, and the small real plate they run on."""
