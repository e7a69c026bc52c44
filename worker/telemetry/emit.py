"""The one seam of telemetry: a component emits an event, and whatever has subscribed to it is called.

    emit("slice.sent", store="main", size_bytes=3_145_728, took_s=0.4)

`worker/telemetry/events.py` has the names, the fields and what each event means. The log is a subscriber; metrics,
traces and webhooks can be others. An event without a subscriber costs one look-up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

Subscriber = Callable[[str, Mapping[str, object]], None]
"""Called with the event's name and its fields, in the thread that emits, right where it happens: it must be quick. What
it raises is logged, and never reaches the component."""

_subscribers: dict[str, tuple[Subscriber, ...]] = {}


def emit(name: str, /, **fields: object) -> None:
    """Call the subscribers of an event, in the order of their subscription."""
    if name in _subscribers:
        for subscriber in _subscribers[name]:
            _call(subscriber, name, fields)


def is_subscribed(name: str) -> bool:
    """Whether the event has a subscriber; for fields that cost something to find out."""
    return name in _subscribers


def subscribe(subscriber: Subscriber, names: Iterable[str]) -> Callable[[], None]:
    """Call the subscriber for these events from now on; returns the function that ends it.

    Raises:
        KeyError: there is no event of a name.
    """
    from worker.telemetry.events import EVENTS  # noqa: PLC0415 - only subscribers need the table

    wanted = tuple(names)
    for name in wanted:
        if name not in EVENTS:
            raise KeyError(f"there is no event {name!r}; `worker/telemetry/events.py` has all of them")
    for name in wanted:
        _subscribers[name] = (*_subscribers.get(name, ()), subscriber)

    def end() -> None:
        for name in wanted:
            left = list(_subscribers.get(name, ()))
            if subscriber in left:
                left.remove(subscriber)
            if left:
                _subscribers[name] = tuple(left)
            else:
                _subscribers.pop(name, None)

    return end


def _call(subscriber: Subscriber, name: str, fields: Mapping[str, object]) -> None:
    try:
        subscriber(name, fields)
    except Exception:  # noqa: BLE001 - logged; the component goes on
        from worker.telemetry.log import get_logger  # noqa: PLC0415 - the log is a subscriber itself

        get_logger(__name__).exception("telemetry.subscriber_broken", broken=name)
