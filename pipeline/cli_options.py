"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path

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
