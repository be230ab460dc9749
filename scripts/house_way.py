"""Follow one trial through the package, from its claim to its end; see `way`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import Any

TRAINING = ("training", "methods", "models", "data")
OVERRIDES = (
    "data.max_per_class=24",
    "model.name=resnet8",
    "model.width=4",
    "budget.epochs=2",
)


class Profile:
    """What sys.setprofile calls: notes where the way leads from file to file."""

    def __init__(self, package: Path, loop: str) -> None:
        self.package, self.loop = f"{package}/", loop
        self.stack: list[str] = []
        self.outermost: FrameType | None = None
        self.stops: list[str] = []
        self.back_in_loop = 0

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        """Follow a call or a return of a function of skdtune."""
        path = frame.f_code.co_filename
        if event not in ("call", "return") or not path.startswith(self.package):
            return
        place = path.removeprefix(self.package)
        if place.split("/")[0] in TRAINING:
            place = "training"
        if event == "call":
            if frame.f_code.co_name == "claim" and place != self.loop and not self.stops:
                self._begin(frame)
            self._go(self.stack[-1] if self.stack else "", place, is_call=True)
            self.stack.append(place)
        elif self.stack:
            self.stack.pop()
            self._go(place, self.stack[-1] if self.stack else "", is_call=False)
            if frame is self.outermost:
                sys.setprofile(None)

    def _begin(self, frame: FrameType) -> None:
        """The trial is claimed: the way ends when the loop that claims it does."""
        outer: FrameType | None = frame
        while (outer := outer.f_back if outer else None) is not None:
            if outer.f_code.co_qualname.startswith("Worker."):
                self.outermost = outer

    def _go(self, here: str, to: str, *, is_call: bool) -> None:
        if self.outermost is None or here == to:
            return
        if is_call:
            self.stops.append(to)
        self.back_in_loop += to == self.loop


def way(root: Path, loop: str) -> dict[str, Any]:
    """Train a trial of a tiny study (digits, resnet8, 2 epochs, CPU), and count its way.

    It begins when a function `claim` of another file than the loop's is called, and ends when the
    outermost method of `Worker` returns. Only the main thread is followed, not the heartbeat's.

    Args:
        root: Folder in which skdtune/ lies.
        loop: The file that defines the class `Worker`, by its path in skdtune/.

    Returns:
        ``stops``: the file, each time that a call, a lambda's too, enters a function of another
        file of skdtune than its caller's; data/, models/, methods/ and training/ are one file.
        ``files`` and ``rooms``: where these were. ``back_in_loop``: how often control comes from
        another file into the loop's, by a call or by a return.
    """
    sys.path.insert(0, str(root))
    import skdtune

    package = Path(skdtune.__file__).parent
    if package != root / "skdtune":
        raise SystemExit(f"skdtune comes from {package}")
    spec = skdtune.load_spec("digits-baseline", overrides=OVERRIDES, name="way", num_trials=2)
    with tempfile.TemporaryDirectory() as folder:
        from skdtune.home import Home

        at = Home(Path(folder))
        where: dict[str, Any] = {"storage": at.storage_url, "at": at, "device": "cpu"}
        skdtune.create_study(spec, storage=at.storage_url)
        # The second trial is followed: the first loads and decodes what is needed once.
        skdtune.run_worker("way", max_trials=1, **where)
        profile = Profile(package, loop)
        sys.setprofile(profile)
        skdtune.run_worker("way", max_trials=1, **where)
        sys.setprofile(None)
    files = sorted(set(profile.stops))
    rooms = sorted({file.split("/")[0] if "/" in file else file for file in files})
    return {
        "stops": profile.stops,
        "files": files,
        "rooms": rooms,
        "back_in_loop": profile.back_in_loop,
    }
