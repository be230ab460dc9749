"""SVHN, digits of house numbers, in the cropped form in which its authors publish it.

Source: Netzer et al., Reading Digits in Natural Images with Unsupervised Feature Learning, 2011;
http://ufldl.stanford.edu/housenumbers/; checksums by torchvision. The further half a million
images of ``extra_32x32.mat`` are not taken.

Shape legend: N images, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from skdtune.data.archive import PublishedFile
from skdtune.data.data_set import ArrayDataSet, DecodedPart, Glance, PartRequest
from skdtune.data.listed_files import read_mat
from skdtune.data.short_hash import short_hash
from skdtune.describe.data_facts import DataFacts
from skdtune.errors import DataError

_ADDRESS = "http://ufldl.stanford.edu/housenumbers"


@dataclass(frozen=True, kw_only=True)
class Svhn(ArrayDataSet):
    """Only the file of the part that is asked for is opened."""

    files: Mapping[str, PublishedFile]
    """The file of each part."""

    def version(self, request: PartRequest) -> str:
        """Name the part by the checksum of its file."""
        return short_hash(str(self.files[request.split].md5))

    def glance(self, request: PartRequest) -> Glance:
        """Look for the two files."""
        missing = self.files["train"].missing(request)
        if missing:
            return Glance(missing="" if request.download else missing)
        return Glance(missing_test="" if request.download else self.files["test"].missing(request))

    def decode(self, request: PartRequest) -> DecodedPart:
        """Read the file after its checksum was compared; its label 10 is the digit 0."""
        import numpy as np

        file = self.files[request.split]
        path = file.provided(request)
        file.check(path)
        content = read_mat(path)
        try:
            images_NHWC = np.ascontiguousarray(content["X"].transpose(3, 0, 1, 2))
            labels_N = content["y"].reshape(-1).astype(np.int64) % 10
        except (KeyError, ValueError, AttributeError) as error:
            raise DataError(f"{path} is not the published file ({error!r})") from error
        return DecodedPart(
            images_NHWC=images_NHWC, labels_N=labels_N, class_names=tuple("0123456789")
        )


SVHN = Svhn(
    about=DataFacts(
        title="SVHN: 32 x 32 photographs of digits of house numbers",
        num_classes=10,
        image_shape=(3, 32, 32),
        num_train=73_257,
        num_test=26_032,
        address=f"{_ADDRESS}/",
        download_mb=246,
        licence="for non-commercial use",
    ),
    files={
        "train": PublishedFile(
            url=f"{_ADDRESS}/train_32x32.mat",
            filename="train_32x32.mat",
            md5="e26dedcc434d2e4c54c9b2d4a06d8373",
        ),
        "test": PublishedFile(
            url=f"{_ADDRESS}/test_32x32.mat",
            filename="test_32x32.mat",
            md5="eb5a983be6a315427106f1b164d9cef3",
        ),
    },
)
