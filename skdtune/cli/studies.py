"""``skdtune studies``."""

from __future__ import annotations

import click

from skdtune.cli.application import common_options, echo_json, json_option


@click.command()
@json_option
@common_options
def studies(as_json: bool) -> None:
    """List the presets, one line each."""
    from skdtune.describe.preset_folder import list_presets

    presets = list_presets()
    if as_json:
        echo_json([{"name": p.name, "description": p.description} for p in presets])
        return
    width = max(len(preset.name) for preset in presets)
    for preset in presets:
        click.echo(f"{preset.name:<{width}}  {preset.description}")
