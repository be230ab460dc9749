from __future__ import annotations

import threading

from skdtune.worker.settlement import Settlement


def test_one_of_two_threads_settles_a_trial_and_the_other_can_wait_for_it() -> None:
    settlement, settled = Settlement(), threading.Event()
    assert settlement.take()
    assert not settlement.take()
    waiting = threading.Thread(target=lambda: (settlement.wait(), settled.set()))
    waiting.start()
    assert not settled.wait(0.1)
    settlement.finish()
    assert settled.wait(60)
