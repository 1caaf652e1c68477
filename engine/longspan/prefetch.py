"""Work on the next item while the caller is busy with this one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def prefetched(make: Callable[[A], B], items: Iterator[A], alone: Callable[[A], bool]) -> Iterator[B]:
    """`make` of each item, by another thread while the one before is in use: never more than one ahead.

    Items are taken in the caller's thread. One that stands `alone` is handed out before the next is taken. What taking
    or making an item raises is raised here, after all that came before. A consumer that stops early waits for the item
    under way.
    """
    failure: Exception | None = None
    coming: Future[B] | None = None
    with ExitStack() as leaving:
        pool: ThreadPoolExecutor | None = None
        while True:
            try:
                item = next(items)
            except StopIteration:
                break
            except Exception as error:
                failure = error
                break
            if coming is None and alone(item):  # needs no thread
                yield make(item)
                continue
            if pool is None:
                pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="longspan-prefetch")
                leaving.enter_context(pool)
            before, coming = coming, pool.submit(make, item)
            if before is not None:
                yield before.result()
            del before  # what it holds may be large
            if alone(item):
                yield coming.result()
                coming = None
        if coming is not None:
            yield coming.result()
    if failure is not None:
        raise failure
