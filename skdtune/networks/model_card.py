"""The model card of an exported network: what it is, how it was measured, how it is used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from skdtune.describe.value_format import format_accuracy

#: The files of a folder that is handed out.
STATE, PROGRAM, CARD, FACTS = "model.safetensors", "model.pt2", "README.md", "trial.json"

_PROGRAM_USE = """\
import json, pathlib, torch

network = torch.export.load("model.pt2").module()
mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in ({mean}, {std}))
images = torch.zeros(2, {channels}, {height}, {width}, dtype=torch.uint8)  # yours, 0 to 255
logits = network((images / 255 - mean) / std)
names = json.loads(pathlib.Path("trial.json").read_text())["network"]["class_names"]
print([names[index] for index in logits.argmax(dim=1)])"""

_STATE_USE = """\
import torch
from skdtune.models.network_file import read_network_file

network = read_network_file("{state}").build()
mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in ({mean}, {std}))
images = torch.zeros(2, {channels}, {height}, {width}, dtype=torch.uint8)  # yours, 0 to 255
with torch.inference_mode():
    print(network((images / 255 - mean) / std).argmax(dim=1))"""


def model_card(facts: Mapping[str, Any]) -> str:
    """Write the card as Markdown.

    Args:
        facts: What ``trial.json`` holds.
    """
    network = facts["network"]
    sections = [
        f"# {network['model']} of {_whose(facts)}",
        _summary(facts),
        "## Accuracy\n\n" + _accuracy(facts),
        "## Use\n\n" + _use(facts),
        "## Method\n\n" + _method(network["config"].get("method") or {}),
        "## Data and recipe\n\n" + _recipe(facts),
        "## Where it comes from\n\n" + _origin(facts),
        "## Intended use and limits\n\n" + _limits(facts),
    ]
    return "\n\n".join(sections) + "\n"


def _whose(facts: Mapping[str, Any]) -> str:
    """Name what trained the network: a trial of a study, or a run without one."""
    if "run" in facts:
        return f"the run {facts['run']}"
    return f"trial {facts['trial']} of {facts['study']}"


def _summary(facts: Mapping[str, Any]) -> str:
    network = facts["network"]
    return (
        f"An image classifier for {len(network['class_names'])} classes: backbone "
        f"`{network['model']}` of width {network['width']}, {facts['num_parameters']:,} "
        f"parameters, images of {network['in_channels']} x {network['height']} x "
        f"{network['image_width']}. It was trained with self-knowledge distillation or one of "
        "its baselines; auxiliary classifiers that took part in the training are not in it. "
        "Trained and exported by skdtune, which compared its outputs with those of the network "
        f"that was evaluated: {facts['agreement']}."
    )


def _accuracy(facts: Mapping[str, Any]) -> str:
    measured = facts["measured"]
    accuracy, error = measured["accuracy"], measured["standard_error"]
    plus = f" ± {format_accuracy(error)} (standard error)" if error is not None else ""
    lines = [
        f"**{format_accuracy(accuracy)}**{plus} of {measured['num_images'] or '?'} "
        f"{measured['images']} images, in {facts['network']['precision']}, after the last epoch."
    ]
    if measured["images"] == "test":
        lines.append(
            "The test images were opened once, after the training; no choice was made by them. "
            "The standard error is that of the images: another seed gives another network."
        )
    elif "run" not in facts:
        lines.append(
            "**Optimistic:** the search chose its best trial by these very images. For an honest "
            f"number: `skdtune evaluate {facts['study']}`."
        )
    elif facts["from"]:
        lines.append(
            f"**Perhaps optimistic:** the settings are those of trial {facts['from']['trial']} of "
            f"{facts['from']['study']}, whose trials were judged by these very images."
        )
    else:
        lines.append("The images were held out of the training; the run chose nothing by them.")
    scores = {name: value for name, value in measured["scores"].items() if value is not None}
    if scores:
        rows = [f"| {_SCORES[name]} | {_score(name, value)} |" for name, value in scores.items()]
        lines.append("\n".join(["| on the same images | |", "| :--- | ---: |", *rows]))
    return "\n\n".join(lines)


def _score(name: str, value: float) -> str:
    # The likelihood alone is no share of 1.
    return f"{value:.4f}" if name == "nll" else format_accuracy(value)


_SCORES = {
    "top5": "share with the right class among the five likeliest",
    "ece": "expected calibration error",
    "nll": "negative log-likelihood (nats)",
}


def _use(facts: Mapping[str, Any]) -> str:
    network = facts["network"]
    has_program = "model.pt2" in facts["files"]
    values = {
        # As the network was trained: float32, written so that it reads back the same.
        "mean": list(network["mean"]),
        "std": list(network["std"]),
        "channels": network["in_channels"],
        "height": network["height"],
        "width": network["image_width"],
        "state": STATE if STATE in facts["files"] else next(iter(facts["files"])),
    }
    template = _PROGRAM_USE if has_program else _STATE_USE
    needs = "torch alone" if has_program else "torch and skdtune"
    more = (
        "`model.safetensors` is the state dict under the backbone's own names "
        "(`safetensors.torch.load_file`), and can teach another training (TF-KD, self)."
        if STATE in facts["files"]
        else f"`{values['state']}` also holds the few images that its outputs are checked on, and "
        "can teach another training (TF-KD, self). `skdtune export` of this folder writes a plain "
        "state dict, and a program that needs torch alone."
    )
    return f"With {needs}:\n\n```python\n{template.format(**values)}\n```\n\n{more}"


def _method(terms: Mapping[str, Any]) -> str:
    return _settings({name: term for name, term in terms.items() if term is not None})


def _recipe(facts: Mapping[str, Any]) -> str:
    network = facts["network"]
    config = {k: network["config"].get(k) for k in ("data", "model", "optimizer", "budget")}
    # Where the data lay on one machine is nothing that a reader could use.
    config["data"] = {k: v for k, v in config["data"].items() if k not in ("root", "download")}
    parts = {"train": "the training images", "train+val": "training and validation images"}
    return (
        f"It learned from {parts[network['trained_on']]} of `{config['data']['name']}`, "
        f"fingerprint `{network['data_fingerprint']}`.\n\n{_settings(config)}"
    )


def _settings(content: Mapping[str, Any]) -> str:
    dumped = yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True).rstrip()
    return f"```yaml\n{dumped}\n```"


def _origin(facts: Mapping[str, Any]) -> str:
    network = facts["network"]
    seed = network["config"].get("seed")
    trained_by = (
        {
            "run": facts["run"],
            "seed": seed,
            "hash": facts["run_hash"],
            **{f"{name} that it is from": value for name, value in (facts["from"] or {}).items()},
        }
        if "run" in facts
        else {
            "study": facts["study"],
            "trial": facts["trial"],
            "seed of the trial": seed,
            "seed of the study": facts["study_seed"],
            "spec": facts["spec_hash"],
        }
    )
    rows = {
        **trained_by,
        **{f"{name} of the training": value for name, value in network["environment"].items()},
        **{f"sha256 of {name}": digest for name, digest in facts["files"].items()},
        "sha256 of the artifact": facts["artifact_sha256"],
    }
    lines = [f"| {name} | `{str(value).replace('|', '/')}` |" for name, value in rows.items()]
    return "\n".join(["| | |", "| :--- | :--- |", *lines])


def _limits(facts: Mapping[str, Any]) -> str:
    network = facts["network"]
    precision = (
        " The accuracy was measured in bfloat16; the exported network computes in float32, in "
        "which a few images may be classified otherwise."
        if network["precision"] == "bfloat16"
        else ""
    )
    return (
        "Meant for research: comparing training methods, and as a teacher or baseline. It knows "
        "no class beside its own, and names one of them for any image. Images from elsewhere "
        "than the data set, of another size or with another normalisation, are not what the "
        "accuracy was measured on. Its probabilities are calibrated as far as the table says, and "
        f"no further.{precision} Terms of the data set may bind the use of the network, too."
    )
