"""Instructions of each op: the profile's events, the counts at its clock, and the file's ops.

The delegate's events have a name ("Convolution (NHWC, QC8) IGEMM") and a length, but neither a
place in the file nor a start. Their counts are found where looks at the clock lie as far apart as
all events of the partition say. Their ops are found by order: XNNPACK runs what the file has,
in its order, leaves some out (a reshape) and puts some in (a conversion).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, zip_longest

from tfedge.targets.arm64.guest import Event, Mix
from tfedge.targets.kernels import align
from tfedge.tflite import flatbuffer
from tfedge.tflite.layers import op_layers

_OP, _INSIDE = 2, 8


@dataclass(frozen=True)
class OpCost:
    """What one op takes.

    Attributes:
        index: Position in the main subgraph; None for what only XNNPACK has.
        op: Builtin operator name, or "" where `index` is None.
        layer: Keras layer behind it, where the file's metadata name the layers, or "".
        kernel: XNNPACK's name of it, or "" for the runtime's own kernel.
        mix: Its instructions.
        ms: Milliseconds by a model of the core; None where there is none.
        bound: What of the core it keeps busy then, or "".
    """

    index: int | None
    op: str
    layer: str
    kernel: str
    mix: Mix
    ms: float | None = None
    bound: str = ""


@dataclass(frozen=True)
class Costs:
    """Instructions of an inference.

    Attributes:
        target: Target name.
        total: Of the whole inference, without a profiler.
        ops: Of each op, in the order of execution. Where the profile cannot be laid over the
            counts, `mix` has the number of instructions only.
        rest: Of the runtime outside all ops: the total less the ops', because under the profiler
            it would be more.
        note: What is to be said of the rows, or "".
        source: As in `Timing`.
        ms: Milliseconds of all by a model of the core; None where there is none.
        rest_ms: Those of `rest`.
    """

    target: str
    total: Mix
    ops: tuple[OpCost, ...]
    rest: Mix
    note: str = ""
    source: str = "emulated"
    ms: float | None = None
    rest_ms: float | None = None


@dataclass(frozen=True)
class _Span:
    event: Event
    begin: int
    mix: Mix
    partition: int = -1

    @property
    def end(self) -> int:
        return self.begin + self.event.length


def outside(events: Sequence[Event]) -> set[int]:
    """Positions of the main subgraph's ops that the delegate left to the runtime."""
    return {e.index for e in events if e.type == _OP and e.subgraph == 0}


def partitions(events: Sequence[Event], clocks: Sequence[Mix]) -> int:
    """How many times the delegate was entered in the main subgraph; see `op_costs`."""
    return len({span.partition for span in _spans(events, clocks)} - {-1})


def op_costs(data: bytes, events: Sequence[Event], clocks: Sequence[Mix]) -> tuple[OpCost, ...]:
    """Instructions of each op, in the order of execution.

    Args:
        data: The whole file.
        events: The profile of one inference.
        clocks: Counts at each look at the clock, as in `Reply`. What the looks take themselves is
            left out of the rows.
    """
    model = flatbuffer.read(data)
    graph = model.subgraphs[0]
    names = [flatbuffer.op_name(model, op) for op in graph.operators or []]
    layers = op_layers(model, flatbuffer.get_metadata(data).get("layers", ()))
    spans = _spans(events, clocks)
    left = outside(events)
    own = [i for i in range(len(names)) if i not in left]
    kernels = [s for s in spans if s.event.type == _INSIDE]
    places = align([names[i] for i in own], [s.event.tag for s in kernels])
    index = {id(s): own[p] for s, p in zip(kernels, places, strict=True) if p is not None}
    index |= {id(s): s.event.index for s in spans if s.event.type == _OP}
    rows = []
    for span in spans:
        i = index.get(id(span))
        kernel = span.event.tag if span.event.type == _INSIDE else ""
        name, layer = ("", "") if i is None else (names[i], layers[i])
        rows.append(OpCost(i, name, layer, kernel, span.mix))
    return tuple(rows)


def _runs(inside: Sequence[Event]) -> list[list[Event]]:
    """The delegate's events by partition: each counts its ops from 0."""
    found: list[list[Event]] = []
    last = -1
    for event in inside:
        if not found or event.index <= last:
            found.append([])
        found[-1].append(event)
        last = event.index
    return found


def _spans(events: Sequence[Event], clocks: Sequence[Mix]) -> list[_Span]:
    """Ops of the main subgraph and of the delegate in it, in the order of time.

    An op with others inside it (a loop) is their sum: the profiler takes more there than they do.
    """
    spans = sorted(_measured(events, clocks), key=lambda s: (s.begin, -s.event.length))
    kept: list[_Span] = []
    for span, after in zip_longest(spans, spans[1:]):
        leaf = after is None or after.begin >= span.end
        if not kept or span.begin >= kept[-1].end:
            kept.append(span if leaf else replace(span, mix=Mix()))
        elif leaf:
            kept[-1] = replace(kept[-1], mix=kept[-1].mix + span.mix)
    return kept


def _measured(events: Sequence[Event], clocks: Sequence[Mix]) -> list[_Span]:
    """Events with their counts; those inside the delegate with their partition."""
    times = [mix.instructions for mix in clocks]
    position = {time: i for i, time in enumerate(times)}
    spans = []
    for event in events:
        if event.type == _OP:
            ends = (event.start, event.start + event.length)
            known = all(end in position for end in ends)
            mix = _between(clocks, *(position[e] for e in ends)) if known else Mix(event.length)
            spans.append(_Span(event, event.start, mix))
    start = 0
    for number, run in enumerate(_runs([e for e in events if e.type == _INSIDE])):
        places = _places([e.length for e in run], times, start)
        begin = times[start] if times else 0
        for k, event in enumerate(run):
            if places:
                mix = _between(clocks, places[k], places[k + 1])
                spans.append(_Span(event, times[places[k]], mix, number))
            else:
                spans.append(_Span(event, begin, Mix(event.length), number))
                begin += event.length
        start = places[-1] if places else start
    return spans


def _between(clocks: Sequence[Mix], first: int, last: int) -> Mix:
    """Counts between two looks at the clock, without what the looks take themselves."""
    return (clocks[last] - clocks[first]).less(clocks[1] - clocks[0], last - first)


def _places(lengths: Sequence[int], times: Sequence[int], start: int) -> list[int]:
    """Where looks at the clock lie apart as events that follow each other take.

    An event may hold several looks (a concatenation is a copy for each of its inputs).

    Args:
        lengths: Instructions of the events of a partition.
        times: Instructions so far at each look.
        start: Look to begin with.

    Returns:
        Positions in `times` of the begin of each event, and of the last one's end; empty where the
        events lie nowhere.
    """
    position = {time: i for i, time in enumerate(times)}
    for first in range(start, len(times)):
        ends = [times[first] + total for total in accumulate(lengths, initial=0)]
        if all(end in position for end in ends):
            return [position[end] for end in ends]
    return []
