"""Work on the next item while the caller is busy with this one."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def prefetched(items: Iterator[T]) -> Iterator[T]:
    """The same items, each made by another thread while the one before is in use: never more than one ahead.

    What making an item raises is raised here, in its place. A consumer that stops early waits for the item under way.
    """
    nothing = object()
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="longspan-prefetch") as pool:
        coming = pool.submit(next, items, nothing)
        while (item := coming.result()) is not nothing:
            coming = pool.submit(next, items, nothing)
            yield item  # type: ignore[misc]  # only `nothing` is no T
            del item  # which may be large, before the next is waited for
