"""A teacher that was trained before must not know what its student is judged on."""

from __future__ import annotations

from skdtune.describe.spec import StudySpec
from skdtune.describe.term_config import TaughtTermConfig
from skdtune.errors import DataError
from skdtune.models.network_file import read_network_file


def require_honest_teacher(spec: StudySpec, data_fingerprint: str) -> None:
    """Read the frozen teacher of a study, and refuse one that saw the validation images.

    A search is judged on validation images. A network that learned from them, because it comes
    from a final evaluation or from another split, would hand on what it remembers of them. No
    exported network has seen test images, so a final evaluation takes any.

    Args:
        spec: The study; one without a teacher passes.
        data_fingerprint: What identifies its training and validation images.

    Raises:
        DataError: If the file is missing, is another one than its checksum says, or holds a
            network that learned from other images than this study's training images.
    """
    for settings in spec.method.teachers.values():
        _require_honest(settings, spec, data_fingerprint)


def _require_honest(settings: TaughtTermConfig, spec: StudySpec, data_fingerprint: str) -> None:
    info = read_network_file(settings.teacher, settings.teacher_sha256).info
    if spec.kind.is_tested:
        return
    if info.trained_on != "train" or info.data_fingerprint != data_fingerprint:
        learned = (
            "from training and validation images together"
            if info.trained_on != "train"
            else "from another split, or from other data"
        )
        raise DataError(
            f"the teacher {settings.teacher} (trial {info.trial} of {info.study}) learned "
            f"{learned}: its student's validation accuracy would say nothing; export one from a "
            "search of a baseline on the same data and split"
        )
