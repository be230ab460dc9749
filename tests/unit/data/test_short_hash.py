from __future__ import annotations

from skdtune.data.short_hash import short_hash


def test_short_hash_knows_where_a_part_ends() -> None:
    assert short_hash("ab", "c") != short_hash("a", "bc")
