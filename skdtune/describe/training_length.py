"""How long a trial trains, and whether that is long enough for its method to do anything.

A method that learns from the batch or the epoch before has nothing to learn from where there is
none: what trains then is plain cross-entropy under another name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from skdtune.describe.data_facts import facts_of
from skdtune.errors import SpecError, in_one_line

if TYPE_CHECKING:
    from skdtune.describe.config import DataConfig, TrialConfig
    from skdtune.describe.spec import StudySpec


@dataclass(frozen=True, kw_only=True)
class TrainingLength:
    """Epochs, and what an epoch is made of."""

    epochs: int
    """Epochs that are planned."""

    num_images: int
    """Images to learn from; where it is not known yet, the most that there can be."""

    batch_size: int
    """Images of a batch, as it is set."""

    companions: int = 0
    """Images of its class beside each image."""

    @property
    def steps(self) -> int:
        """Steps of an epoch; the last, smaller batch is none, but for a batch of all images."""
        anchors = min(self.batch_size, self.num_images) // (1 + self.companions)
        return self.num_images // max(1, anchors)

    @property
    def too_few_images(self) -> str:
        """Say that there is no second batch, and what to do."""
        return (
            f"{self.num_images:,} training images make no second batch of {self.batch_size}: take "
            f"a data.batch_size of at most {self.num_images // 2}, more images or another method"
        )


def require_long_enough(spec: StudySpec, num_images: int) -> None:
    """Refuse a study with a method that would do nothing in so short a training.

    Args:
        spec: The study; if batch sizes are searched, the largest one counts.
        num_images: Images to learn from, validation images not among them; or more than there are.

    Raises:
        SpecError: One line with the setting, the numbers and what to do.
    """
    for config in _longest_batches(spec):
        length = TrainingLength(
            epochs=config.budget.epochs,
            num_images=num_images,
            batch_size=config.data.batch_size,
            companions=config.method.companions,
        )
        for name, term in config.method.terms().items():
            try:
                term.require_length(name, length)
            except ValueError as error:
                raise SpecError(f"{spec.name}: {error}") from None
            except Exception as error:
                # That of a package: its fault must not look like ours.
                raise SpecError(
                    f"{spec.name}: method.{name}: cannot be checked: {type(error).__name__}: "
                    f"{in_one_line(error)}"
                ) from error


def most_training_images(spec: StudySpec) -> int | None:
    """Return how many images trials can learn from at most, by what is known without the data.

    Returns:
        None if the files of the data set decide.
    """
    config: DataConfig = spec.data
    about = facts_of(config.name)
    num_images, num_classes = about.num_train, about.num_classes
    if config.max_per_class is not None and num_classes is not None:
        kept = config.max_per_class * num_classes
        num_images = kept if num_images is None else min(num_images, kept)
    if num_images is None or spec.kind.learns_from_all_images:
        return num_images
    # Each class gives its share, rounded, and one image at least.
    classes = num_classes or 1
    return num_images - max(classes, int(num_images * config.val_fraction - classes / 2))


def _longest_batches(spec: StudySpec) -> list[TrialConfig]:
    """Return the configurations with the fewest steps: the candidates, or the largest values."""
    if candidates := spec.kind.candidates:
        return [spec.trial_config({}, number) for number in range(len(candidates))]
    params: dict[str, Any] = spec.base_params()
    # A weight too: its lowest value may switch the method off.
    weights = {path for path in params if path.startswith("method.") and path.endswith(".weight")}
    for path in weights | ({"data.batch_size"} & params.keys()):
        params[path] = max(spec.search[path].examples())
    return [spec.trial_config(params, 0)]
