"""`batchway demo`: the options; the story is `demo/run.py`."""

from __future__ import annotations

import click

from batchway.cli.demo.run import run_demo
from batchway.cli.options import json_option


@click.command("demo")
@click.option("--lines", type=click.IntRange(min=1), default=120, show_default=True, help="Chat requests in the batch.")
@click.option("--keep", is_flag=True, help="Keep the folder with the gateway's state, the files and the logs.")
@json_option
def demo_command(lines: int, *, keep: bool, as_json: bool) -> int:
    """Run a real batch on a small model, here and now.

    No key and no network are needed. The model is served in this process, the gateway runs beside it, and is killed
    once in the middle to show that nothing is lost.
    """
    return run_demo(keep=keep, as_json=as_json, lines=lines)
