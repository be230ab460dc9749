"""Whether several workers fit on one device; what they need is measured elsewhere, with torch."""

from __future__ import annotations

from dataclasses import dataclass

from skdtune.errors import DeviceError

#: Share of the free memory that workers may plan with: allocators hold back and fragment.
USABLE = 0.9


@dataclass(frozen=True)
class MemoryNeed:
    """What one worker takes at its peak, and what there was to take, in bytes."""

    needed: int
    free: int

    @property
    def num_fitting(self) -> int:
        """Workers of this need that fit at once."""
        return int(self.free * USABLE) // max(1, self.needed)

    def require(self, num_workers: int, device: str) -> None:
        """Refuse more workers than fit.

        Raises:
            DeviceError: Naming both sizes and the number that fits.
        """
        if num_workers > self.num_fitting:
            raise DeviceError(
                f"{num_workers} workers do not fit on {device}: one needs "
                f"{self.needed / 2**30:.2f} GiB of the {self.free / 2**30:.2f} GiB that are free, "
                f"so at most {self.num_fitting} fit; lower --workers-per-gpu or --workers"
            )
