"""The exceptions a user can meet, and the exit code each one ends the command line with.

    SkdtuneError                    1   something failed while running
    ├── InputError                  2   wrong use or wrong input: nothing was changed
    │   ├── SpecError               2   a study spec, a preset or a ``--set`` is wrong
    │   ├── DataError               2   data are missing, half copied or unreadable
    │   │   └── OtherDataError      2   the data are not those that the study was begun with
    │   ├── DeviceError             2   the device asked for is not there
    │   ├── StorageError            2   the storage cannot be used as it is
    │   │   └── StorageEmptyError   2   nobody has made a study in it yet
    │   └── StudyError              2   the study does not exist, or exists with another spec
    ├── NonFiniteLossError          1   a loss became NaN or infinite: the trial ends
    ├── LeaseLostError              1   another worker owns the trial now
    ├── CheckpointError             1   a checkpoint cannot be written, or is of another training
    ├── StorageAwayError            1   the storage did not answer for too long
    ├── StorageLostError            1   the file of the storage was deleted or replaced in use
    ├── TestSplitClosedError        1   a search asked for the test images: a fault of the program
    └── StudyPausedError            4   the study is paused: somebody must look at the reason

A message is one line: what is wrong, where, what was received, and what to do.
"""

from __future__ import annotations


class SkdtuneError(Exception):
    """Something failed while running; the base of every error of this package."""

    exit_code = 1


class InputError(SkdtuneError):
    """Wrong use or wrong input; nothing was changed."""

    exit_code = 2


class SpecError(InputError):
    """A study spec, a preset or a ``--set`` is wrong."""


class DataError(InputError):
    """Data are missing, half copied or unreadable."""


class OtherDataError(DataError):
    """The images on this machine are not those that the study was begun with."""


class DeviceError(InputError):
    """The device asked for is not there."""


class StorageError(InputError):
    """The storage cannot be used as it is: unreachable, read-only, or of another schema.

    Args:
        message: What is wrong, and what to do.
        may_pass: Waiting may help: it does not answer, or is restarting.
    """

    def __init__(self, message: str = "", *, may_pass: bool = False) -> None:
        super().__init__(message)
        self.may_pass = may_pass


class StorageEmptyError(StorageError):
    """Nobody has made a study in the storage yet."""


class StudyError(InputError):
    """The study does not exist, or it exists with another spec."""


class NonFiniteLossError(SkdtuneError):
    """A loss became NaN or infinite; the trial cannot go on."""


class LeaseLostError(SkdtuneError):
    """Another worker owns the trial now; whatever this one would still write is refused."""


class CheckpointError(SkdtuneError):
    """A checkpoint cannot be written, or does not fit the training that would go on from it."""


class StorageAwayError(SkdtuneError):
    """The storage did not answer for longer than a worker waits."""


class StorageLostError(SkdtuneError):
    """The file of the storage was deleted or replaced while it was in use."""


class TestSplitClosedError(SkdtuneError):
    """The test images were asked for outside of a final evaluation; they were not read."""

    # Its name begins like that of a test class, and pytest would take it for one.
    __test__ = False


class StudyPausedError(SkdtuneError):
    """The study is paused: a restart would not help before somebody has looked at the reason."""

    exit_code = 4


def in_one_line(error: BaseException) -> str:
    """Return what an error of somebody else's says, as far as one line has room for it."""
    return " ".join(str(error).split())[:200] or type(error).__name__
