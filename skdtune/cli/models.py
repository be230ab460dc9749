"""``skdtune models``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from skdtune.cli.application import (
    Application,
    common_options,
    console,
    echo_json,
    json_option,
    pass_application,
    terminal,
)

if TYPE_CHECKING:
    from skdtune.catalogues.models import StemChoice

#: What an auxiliary classifier is measured at: the published width, and narrower ones.
_ADAPTER_WIDTHS = (1.0, 0.5, 0.25)


def _image_size(
    _context: click.Context, _parameter: click.Parameter, value: str
) -> tuple[int, int]:
    """Read height and width in pixels: ``32``, or ``32x48``."""
    match = re.fullmatch(r"([1-9]\d{0,3})(?:x([1-9]\d{0,3}))?", value)
    if match is None:
        raise click.BadParameter(
            f"{value!r} is no size in pixels: 32, or 32x48 for height and width"
        )
    return int(match[1]), int(match[2] or match[1])


@click.command()
@click.argument("name", required=False)
@click.option(
    "--image-size",
    callback=_image_size,
    default="32",
    show_default=True,
    metavar="N|HxW",
    help="Height and width of the images in pixels.",
)
@click.option(
    "--classes",
    "num_classes",
    type=click.IntRange(2, 1_000_000),
    default=100,
    show_default=True,
    help="Number of classes.",
)
@click.option(
    "--width",
    type=click.IntRange(4, 512),
    help="Channels of the first stage, where they can be chosen.  [default: as published]",
)
@click.option(
    "--stem",
    type=click.Choice(["default", "by_size", "32px", "64px", "imagenet"]),
    default="default",
    show_default=True,
    help="What a network begins with, where that can be chosen.",
)
@click.option(
    "--in-channels",
    type=click.IntRange(1, 64),
    default=3,
    show_default=True,
    help="Channels of the images.",
)
@json_option
@common_options
@pass_application
def models(
    application: Application,
    name: str | None,
    image_size: tuple[int, int],
    num_classes: int,
    width: int | None,
    stem: StemChoice,
    in_channels: int,
    as_json: bool,
) -> None:
    """List the networks that a study can name, or look at one: what it costs, stage by stage.

    NAME is one of the list, or FAMILY/NAME for a family that has more than it lists.

    Nothing is trained, drawn or downloaded. Multiply-adds are those of one image: a multiplication
    with its addition is one. The memory of an image in training is what the forward keeps for the
    backward, in float32; weights, gradients and the optimiser come on top, once.
    """
    from skdtune.cli.extra import needs_train_extra

    shape = (in_channels, *image_size)
    with needs_train_extra("models"):
        if name is None:
            quiet = as_json or application.verbosity < 0
            rows = _list(shape, num_classes, width, stem, quiet=quiet)
        else:
            looked_at = _look(name, shape, num_classes, width, stem)
    if as_json:
        echo_json(rows if name is None else looked_at)
    elif name is None:
        _print_list(rows, shape, num_classes)
    else:
        _print_one(looked_at)


def _list(
    shape: tuple[int, int, int],
    num_classes: int,
    width: int | None,
    stem: StemChoice,
    *,
    quiet: bool,
) -> list[dict[str, Any]]:
    from rich.progress import track

    from skdtune.catalogues.models import networks
    from skdtune.errors import in_one_line
    from skdtune.models.measuring import count_multiply_adds, outline

    rows = []
    names = track(
        networks(),
        "measuring",
        console=terminal(stderr=True),
        transient=True,
        disable=quiet or not terminal(stderr=True).is_terminal,
    )
    for name in names:
        row = _facts(name)
        try:
            chosen = width if row["width"] is not None else None
            begins = (
                stem if stem in row["stems"] else "by_size" if stem == "by_size" else "default"
            )
            network = outline(name, shape, num_classes, width=chosen, stem=begins)
            row["num_parameters"] = sum(p.numel() for p in network.parameters())
            row["multiply_adds"] = count_multiply_adds(network, shape)
        # A network of a package may fail in any way; the others are listed all the same.
        except Exception as error:
            row |= {"num_parameters": None, "multiply_adds": None, "problem": in_one_line(error)}
        rows.append(row)
    return rows


def _facts(name: str) -> dict[str, Any]:
    """Return what the catalogue says of a network."""
    from skdtune.catalogues.models import MODELS, family_of, network_named, usable_family

    network, package = network_named(name), MODELS.package(family_of(name))
    return {
        "name": name,
        "family": family_of(name),
        "package": usable_family(family_of(name)).package if package is None else str(package),
        "stages": list(network.stages),
        "stems": list(network.stems),
        "width": network.width,
        "has_maps": network.has_maps,
    }


def _look(
    name: str, shape: tuple[int, int, int], num_classes: int, width: int | None, stem: StemChoice
) -> dict[str, Any]:
    from skdtune.catalogues.models import is_of_open_family, networks
    from skdtune.describe.dotted import did_you_mean
    from skdtune.errors import InputError, in_one_line
    from skdtune.models.measuring import cost_of_auxiliary_classifiers, cost_of_network, outline

    if name not in networks() and not is_of_open_family(name):
        raise InputError(f"there is no network {name!r}; {did_you_mean(name, networks())}")
    facts = _facts(name)
    if width is not None and facts["width"] is None:
        raise InputError(f"{name} has one width only, received --width {width}")
    if stem not in ("default", "by_size", *facts["stems"]):
        has = ", ".join(facts["stems"]) or "one only"
        raise InputError(f"{name} has no stem {stem!r}; it has {has}")
    try:
        network = outline(name, shape, num_classes, width=width, stem=stem)
        cost = cost_of_network(network, shape, has_maps=facts["has_maps"])
    except InputError:
        raise
    except Exception as error:
        size = "x".join(map(str, shape))
        raise InputError(
            f"{name} cannot take images of {size}: {in_one_line(error)}; take another --image-size"
        ) from error
    heads = {
        width: cost_of_auxiliary_classifiers(cost.stage_shapes, num_classes, width)
        for width in _ADAPTER_WIDTHS
    }
    stages = [
        {
            "stage": number,
            "name": facts["stages"][number - 1],
            "shape": list(getattr(stage, "sizes", None) or vars(stage).values()),
            "num_parameters": num_parameters,
            "auxiliary_classifiers": [
                {"adapter_width": width, **vars(costs[number])}
                for width, costs in heads.items()
                if number in costs
            ],
        }
        for number, (stage, num_parameters) in enumerate(
            zip(cost.stage_shapes, cost.stage_parameters, strict=True), 1
        )
    ]
    return {
        **facts,
        "width": width or facts["width"],
        "image_shape": list(shape),
        "num_classes": num_classes,
        **vars(cost.whole),
        "classifier_parameters": cost.last_parameters,
        "stages": stages,
    }


def _print_list(rows: list[dict[str, Any]], shape: tuple[int, int, int], num_classes: int) -> None:
    from rich.table import Table

    table = Table(box=None)
    for header in ("family", "network"):
        table.add_column(header)
    for header in ("parameters", "multiply-adds", "stages"):
        table.add_column(header, justify="right")
    for header in ("they put out", "width", "package"):
        table.add_column(header)
    for row in rows:
        costs = (
            (row["problem"], "")
            if row.get("problem")
            else (f"{row['num_parameters']:,}", _scaled(row["multiply_adds"]))
        )
        table.add_row(
            row["family"],
            row["name"],
            *costs,
            str(len(row["stages"])),
            "maps" if row["has_maps"] else "tokens",
            str(row["width"] or "fixed"),
            row["package"] or "skdtune",
        )
    out = console()
    out.print(table)
    size = " x ".join(map(str, shape))
    out.print(
        f"for images of {size} and {num_classes:,} classes; skdtune models NAME looks at one",
        soft_wrap=True,
    )


def _print_one(row: Mapping[str, Any]) -> None:
    from rich.table import Table

    out = console()
    size = " x ".join(map(str, row["image_shape"]))
    out.print(
        f"{row['name']}, family {row['family']} of {row['package'] or 'skdtune'}; images of "
        f"{size}, {row['num_classes']:,} classes"
        + (f", width {row['width']}" if row["width"] else ""),
        soft_wrap=True,
    )
    out.print(
        f"{row['num_parameters']:,} parameters; per image {_scaled(row['multiply_adds'])} "
        f"multiply-adds and, in training, {_scaled(row['training_bytes'])}B kept for the backward",
        soft_wrap=True,
    )
    stages = Table(box=None)
    for header, justify in (("stage", "right"), ("name", "left"), ("puts out", "left")):
        stages.add_column(header, justify=justify)  # type: ignore[arg-type]
    stages.add_column("parameters", justify="right")
    for stage in row["stages"]:
        shape = " x ".join(map(str, stage["shape"]))
        count = f"{stage['num_parameters']:,}"
        stages.add_row(str(stage["stage"]), stage["name"], shape, count)
    stages.add_row("", "classifier", str(row["num_classes"]), f"{row['classifier_parameters']:,}")
    out.print()
    out.print(stages)
    heads = Table(box=None)
    for header in ("stage", "adapter_width", "parameters", "multiply-adds", "kept in training"):
        heads.add_column(header, justify="right")
    for stage in row["stages"]:
        for head in stage["auxiliary_classifiers"]:
            heads.add_row(
                str(stage["stage"]),
                f"{head['adapter_width']:g}",
                f"{head['num_parameters']:,}",
                _scaled(head["multiply_adds"]),
                f"{_scaled(head['training_bytes'])}B",
            )
    out.print()
    out.print("what an auxiliary classifier adds, by the adapter_width of its method")
    out.print(heads)


def _scaled(number: int) -> str:
    """Write a count of things or bytes with three digits and a prefix at its end: ``555 M``."""
    power = min(4, (len(str(number)) - 1) // 3)
    digits = f"{number / 1000**power:#.3g}" if power else str(number)
    return f"{digits.rstrip('.')} {('', 'k', 'M', 'G', 'T')[power]}"
