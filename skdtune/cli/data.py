"""``skdtune data``: what data sets there are, what is wrong with one, and make one ready."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import click

from skdtune.cli.application import (
    Application,
    common_options,
    console,
    echo_json,
    json_option,
    pass_application,
    say,
    terminal,
)

if TYPE_CHECKING:
    from skdtune.data.inspection import Inspection, PartInspection
    from skdtune.describe.data_config import DataConfig

_SHOWN = 20

_root_option = click.option(
    "--root",
    metavar="DIR",
    help="Folder of the data, as `data.root`.  [default: data/ in the home]",
)
_size_option = click.option(
    "--image-size",
    type=click.IntRange(4, 512),
    default=32,
    show_default=True,
    help="Side in pixels that image files are brought to, as `data.image_size`.",
)
_train_only_option = click.option(
    "--train-only", is_flag=True, help="Leave the test images alone, as a search does."
)


@click.group()
def data() -> None:
    """List data sets, check one, or make one ready for training."""


@data.command("list")
@_root_option
@json_option
@common_options
@pass_application
def list_sets(application: Application, root: str | None, as_json: bool) -> None:
    """List the data sets, where they come from, and whether they are here."""
    from skdtune.catalogues.datasets import DATASETS
    from skdtune.data.look import state_of

    rows = []
    for name in DATASETS:
        about, state = state_of(name, root, data_dir=application.home.data)
        rows.append({"name": name, "state": state, **dataclasses.asdict(about)})
    if as_json:
        echo_json(rows)
        return
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for title, justify in (
        ("name", "left"),
        ("classes", "right"),
        ("train", "right"),
        ("test", "right"),
        ("download", "right"),
        ("here", "left"),
        ("what it is", "left"),
    ):
        table.add_column(title, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for row in rows:
        counts = (row["num_classes"], row["num_train"], row["num_test"])
        cells = ["-" if count is None else f"{count:,}" for count in counts]
        size = row["download_mb"]
        cells.append("-" if size is None else f"{size:,} MB")
        table.add_row(row["name"], *cells, row["state"], row["title"])
    console().print(table)
    say(application, "\n`skdtune data prepare NAME` fetches what can be fetched, and decodes it.")


@data.command()
@click.argument("name")
@_root_option
@_size_option
@_train_only_option
@json_option
@common_options
@pass_application
def check(
    application: Application,
    name: str,
    root: str | None,
    image_size: int,
    train_only: bool,
    as_json: bool,
) -> int:
    """Look at every image of a data set: broken, odd, or there twice.

    Nothing is fetched; an archive that is here is unpacked. The test images are looked at for
    damage, and for twins among the training images; nothing learns from them. Exit code 1 if a
    study could not be trained.
    """
    from skdtune.cli.extra import needs_train_extra

    with needs_train_extra("data check"):
        from skdtune.data.inspection import inspect_data

        config = _config(name, root, image_size, download=False)
        seen = inspect_data(
            config,
            data_dir=application.home.data,
            with_test=not train_only,
            image_size=image_size,
        )
    if as_json:
        echo_json({"name": name, "is_usable": seen.is_usable, **dataclasses.asdict(seen)})
    else:
        _tell(application, seen)
    return int(not seen.is_usable)


@data.command()
@click.argument("name")
@_root_option
@_size_option
@click.option("--no-download", is_flag=True, help="Fetch nothing.")
@_train_only_option
@json_option
@common_options
@pass_application
def prepare(
    application: Application,
    name: str,
    root: str | None,
    image_size: int,
    no_download: bool,
    train_only: bool,
    as_json: bool,
) -> None:
    """Fetch what is missing and decode it, so that no worker has to.

    A download that breaks off goes on where it was when the command is given again. The decoded
    images lie in the cache of the home, once for all workers that share it.
    """
    from skdtune.cli.extra import needs_train_extra

    with needs_train_extra("data prepare"):
        from skdtune.data.catalogue import load_test_images, load_training_images
        from skdtune.data.wall import test_split_open

        config = _config(name, root, image_size, download=not no_download)
        folders = {"data_dir": application.home.data, "cache_dir": application.home.cache}
        parts = {"train": load_training_images(config, **folders)}
        if not train_only:
            # Only decoded: a final evaluation on a machine of a cluster need not wait for it.
            with test_split_open():
                parts["test"] = load_test_images(config, **folders)
    if as_json:
        echo_json(
            {
                split: {
                    "images": len(images),
                    "classes": images.num_classes,
                    "shape": images.image_shape,
                    "bytes": images.num_bytes,
                    "fingerprint": images.fingerprint,
                }
                for split, images in parts.items()
            }
        )
        return
    from rich.filesize import decimal

    for split, images in parts.items():
        channels, height, width = images.image_shape
        colours = "grey" if channels == 1 else "colour"
        say(
            application,
            f"{split}: {len(images):,} {colours} images of {width} x {height} in "
            f"{images.num_classes} classes, {decimal(images.num_bytes)} in "
            f"{application.home.cache}",
        )


def _config(name: str, root: str | None, image_size: int, *, download: bool) -> DataConfig:
    """Describe the data as a study would.

    Raises:
        InputError: If there is no such data set, or it needs a root.
    """
    import difflib

    from skdtune.catalogues.datasets import DATASETS
    from skdtune.describe.data_config import DataConfig
    from skdtune.describe.data_facts import facts_of
    from skdtune.errors import InputError

    if name not in DATASETS:
        near = difflib.get_close_matches(name, list(DATASETS), n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise InputError(f"there is no data set {name!r}{hint} (`skdtune data list` shows all)")
    if facts_of(name).needs_root and root is None:
        raise InputError(f"{name} needs {facts_of(name).needs_root}: --root DIR")
    return DataConfig(name=name, root=root, image_size=image_size, download=download)


def _tell(application: Application, seen: Inspection) -> None:
    out = terminal()
    for part in seen.parts:
        for line, style in _lines_of(part):
            if style or application.verbosity >= 0:
                out.print(line, style=style or None, soft_wrap=True)
    leaks = [twins for twins in seen.twins if twins.is_leak]
    both = [twins for twins in seen.twins if len(twins.classes) > 1]
    if not seen.twins:
        if any(part.num_images for part in seen.parts):
            say(application, "no two images are identical")
        return
    say(
        application,
        f"{len(seen.twins):,} groups of identical images: {len(leaks):,} across train and test, "
        f"{len(both):,} with different labels",
    )
    for twins in seen.twins[:_SHOWN]:
        labels = "" if len(twins.classes) == 1 else f"  ({' or '.join(twins.classes)}?)"
        say(application, f"  {' = '.join(twins.images)}{labels}")
    if len(seen.twins) > _SHOWN:
        say(application, f"  and {len(seen.twins) - _SHOWN:,} more (--json lists all)")


def _lines_of(part: PartInspection) -> list[tuple[str, str]]:
    """Say what was seen of a part, what is wrong in red."""
    from skdtune.data.inspection import ODDITIES

    lines: list[tuple[str, Any]] = []
    if part.num_images:
        name, count = part.smallest_class
        sizes = ""
        if part.sizes is not None:
            (least_w, least_h), (most_w, most_h) = part.sizes
            same = part.sizes[0] == part.sizes[1]
            sizes = f", {least_w} x {least_h}" + ("" if same else f" to {most_w} x {most_h}")
        lines.append(
            (
                f"{part.split}: {part.num_images:,} images in {part.num_classes} classes{sizes}; "
                f"fewest of {name}: {count:,}; content {part.content}",
                "",
            )
        )
    lines += [(f"  {count:,} {kind}: {ODDITIES[kind]}", "") for kind, count in part.odd.items()]
    if part.fault:
        lines.append((f"{part.split}: {part.fault}", "red"))
    lines += [(f"  {reason}", "red") for reason in part.broken.values()]
    if part.broken:
        lines.append((f"{part.split}: {len(part.broken):,} files cannot be decoded", "bold red"))
    return lines
