"""Tiny-ImageNet in its published form, with random images, one of them grey."""

from __future__ import annotations

from pathlib import Path

import pytest
from data_makers.made_data import MadeData, few_classes
from data_makers.photographs import CLASSES, TEST, TRAIN, write_image

from skdtune.data.sets import tiny_imagenet


def make(folder: Path, monkeypatch: pytest.MonkeyPatch) -> MadeData:
    """Write the files of a few classes."""
    monkeypatch.setattr(tiny_imagenet, "TINY_IMAGENET", few_classes(tiny_imagenet.TINY_IMAGENET))
    below = folder / "tiny-imagenet-200"
    wnids = [f"n0000000{number}" for number in range(CLASSES)]
    lines = []
    for wnid in wnids:
        for row in range(TRAIN):
            path = below / "train" / wnid / "images" / f"{wnid}_{row}.JPEG"
            write_image(path, grey=row == 0)
        (below / "train" / wnid / f"{wnid}_boxes.txt").write_text("")
        for row in range(TEST):
            name = f"val_{wnid}_{row}.JPEG"
            write_image(below / "val" / "images" / name)
            lines.append(f"{name}\t{wnid}\t0\t0\t9\t9\n")
    (below / "val" / "val_annotations.txt").write_text("".join(lines))
    (below / "wnids.txt").write_text("".join(f"{wnid}\n" for wnid in reversed(wnids)))
    # All classes have words, and two of these the same.
    words = ["crane, bird", "crane", "goldfish, Carassius auratus"]
    text = "".join(f"{wnid}\t{word}\n" for wnid, word in zip(wnids, words, strict=True))
    (below / "words.txt").write_text(text + "n99999999\tentity\n")
    settings = {"root": str(folder), "image_size": 8, "download": False}
    return MadeData(settings=settings, test_only=below / "val")
