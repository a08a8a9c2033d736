"""Running a generator ahead of its consumer, in a thread of its own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from typing import TypeVar

T = TypeVar("T")

_DEPTH = 2


def ahead(source: Iterator[T]) -> Generator[T, None, None]:
    """What `source` yields, a few items ahead of the consumer; its errors come through.

    Worth it where both sides spend their time outside of the interpreter's lock: inflating on
    one side, hashing and writing on the other. Closing the generator ends the thread.
    """
    items: queue.SimpleQueue[tuple[T] | BaseException | None] = queue.SimpleQueue()
    room = threading.Semaphore(_DEPTH)
    closed = threading.Event()

    def produce() -> None:
        try:
            for item in source:
                items.put((item,))
                room.acquire()
                if closed.is_set():
                    return
            items.put(None)
        except BaseException as error:  # noqa: BLE001 - raised again on the consumer's side
            items.put(error)

    thread = threading.Thread(target=produce, name="read-ahead", daemon=True)
    thread.start()
    try:
        while (item := items.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item[0]
            room.release()
    finally:
        closed.set()
        room.release()
        thread.join()
