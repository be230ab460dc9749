"""The handwritten digits that come with scikit-learn: 1,797 grey images of 8 x 8 pixels.

Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, 1998, of which scikit-learn
has the test part. They are installed with the package, so a study on them runs without a network.

Shape legend: N images, C channels, H height, W width.
"""

from __future__ import annotations

from skdtune.data.data_set import ArrayDataSet, DecodedPart, PartRequest
from skdtune.describe.data_facts import DataFacts

TEST_FRACTION = 0.25
"""Share of the images that is set aside for the test."""

TEST_SEED = 20230518
"""Seed of that choice. A constant: no study may choose its own test images."""

_LARGEST_VALUE = 16


class Digits(ArrayDataSet):
    """The digits have no test part of their own: a quarter of each class is set aside for it."""

    def version(self, request: PartRequest) -> str:
        """Name the choice of the test images."""
        return str(TEST_SEED)

    def decode(self, request: PartRequest) -> DecodedPart:
        """Take the images of a part from scikit-learn."""
        # scikit-learn takes a second to import and a worker with a warm cache has no use for it.
        import numpy as np
        from sklearn.datasets import load_digits

        from skdtune.data.splits import stratified_split

        digits = load_digits()
        labels_N = digits.target.astype(np.int64)
        train_N, test_N = stratified_split(labels_N, TEST_FRACTION, TEST_SEED)
        rows_N = train_N if request.split == "train" else test_N
        images_NHW = np.rint(digits.images[rows_N] * (255 / _LARGEST_VALUE)).astype(np.uint8)
        return DecodedPart(
            images_NHWC=images_NHW[..., np.newaxis],
            labels_N=labels_N[rows_N],
            class_names=tuple(str(name) for name in digits.target_names),
        )


DIGITS = Digits(
    about=DataFacts(
        title="scikit-learn's handwritten digits of 8 x 8 pixels",
        num_classes=10,
        image_shape=(1, 8, 8),
        num_train=1347,
        num_test=450,
        address="https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
        licence="CC BY 4.0",
        is_at_hand=True,
    )
)
