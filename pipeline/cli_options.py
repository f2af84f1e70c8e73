"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any

import click

settings_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="TABLE.KEY=VALUE",
    help="Set a key of the file, as in --set tiling.size=512; may be repeated.",
)
config_option = click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    help="How this machine computes. Default: config.toml here, if there is one.",
)
workers_option = click.option("--workers", type=int, help="Workers that segment.")
engine_option = click.option(
    "--engine",
    help="Where workers are: local, slurm, pbs, lsf, sge, or the address of a dask scheduler.",
)
inference_option = click.option(
    "--inference", help='What computes the network: "auto", "torch" or "openvino".'
)
precision_option = click.option(
    "--precision",
    help='Arithmetic of the network: "auto", "float32", "mixed" or "bfloat16".',
)
device_option = click.option("--device", help='"auto", "cpu", "cuda" or "cuda:N".')


def machine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command all options that say how this machine computes, keys of `Config`."""
    options = (
        workers_option,
        engine_option,
        device_option,
        inference_option,
        precision_option,
    )
    return reduce(lambda made, option: option(made), reversed(options), command)
