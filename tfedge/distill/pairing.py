"""Which layers of student and teacher are compared, and what makes their channels comparable.

By name: the layers that a feature loss names. Automatically: the feature maps of both models are
sorted by spatial size; at every size that both have, the deepest layer that both have by name is
taken, else the deepest of each. The models' outputs are left out (the soft loss compares them), and
layers that are called several times. "quant_" of quantize-aware models does not count in a name,
and "/" equals "_" (Keras 3 has no slashes).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfedge._keras import flavour, library, tf
from tfedge.distill.channel_map import surviving
from tfedge.distill.features import Feature
from tfedge.distill.watch import Watch
from tfedge.errors import InputError, did_you_mean
from tfedge.graph import trace
from tfedge.quantized import is_quantized, layer_name

# Layers that only change the border of a map: the automatic pairing passes them by.
_BORDERS = ("ZeroPadding", "Cropping")


@dataclass(frozen=True)
class Site:
    """A layer whose output can be compared.

    Attributes:
        name: Its unique name in the graph.
        plain: The name to match by.
        layer: The layer.
        shape: Of its output, the batch first.
        is_output: It makes an output of the model.
    """

    name: str
    plain: str
    layer: Any
    shape: tuple[int | None, ...]
    is_output: bool

    @property
    def size(self) -> tuple[int | None, ...]:
        """Spatial axes: all but batch and channels."""
        return self.shape[1:-1]


@dataclass(frozen=True)
class Pair:
    """Two layers that are compared.

    Attributes:
        student: The student's layer.
        teacher: The teacher's layer.
        keep: Channels of the teacher that the student has, in order; None for all.
        adapter: Keras layer that brings the student's channels to the teacher's number, or None.
    """

    student: Site
    teacher: Site
    keep: np.ndarray | None = None
    adapter: Any = None


class BoundFeature:
    """A feature loss with its pairs of layers.

    Args:
        feature: The loss.
        pairs: At least one.
    """

    def __init__(self, feature: Feature, pairs: tuple[Pair, ...]) -> None:
        self.feature, self.pairs = feature, pairs

    @property
    def adapters(self) -> list[Any]:
        """Layers that train with the student."""
        return [p.adapter for p in self.pairs if p.adapter is not None]

    def loss(self, student: dict[str, Any], teacher: dict[str, Any]) -> Any:
        """Mean over the pairs.

        Args:
            student: Outputs by layer name.
            teacher: Likewise.

        Returns:
            float32 [N].
        """
        values = []
        for pair in self.pairs:
            mine = tf.cast(student[pair.student.name], tf.float32)
            theirs = tf.stop_gradient(tf.cast(teacher[pair.teacher.name], tf.float32))
            if pair.keep is not None:
                theirs = tf.gather(theirs, pair.keep, axis=-1)
            if pair.adapter is not None:
                mine = pair.adapter(mine)
            values.append(self.feature.loss(mine, theirs))
        return tf.add_n(values) / len(values)


class Sites:
    """The layers of a model that can be compared, and why the others cannot.

    Args:
        model: A functional or sequential model of either Keras.
        role: "student" or "teacher", for messages.
    """

    def __init__(self, model: Any, role: str) -> None:
        graph = trace(model)
        calls = Counter(c.name for c in graph.calls)
        outputs = set(graph.output_refs())
        quantized = is_quantized(model)
        self.role, self.refused = role, {}
        self.sites: list[Site] = []
        for call in graph.calls:
            tensor = graph.tensors[call.outputs[0]]
            if calls[call.name] > 1 or len(call.outputs) != 1:
                self.refused[call.name] = "it is called several times, or has several outputs"
            elif len(tensor.shape) < 2 or not tensor.dtype.startswith(("float", "bfloat")):
                self.refused[call.name] = "its output holds no channels of floating point"
            elif tensor.shape[-1] is None:
                self.refused[call.name] = "its number of channels is not known"
            else:
                plain = layer_name(call.layer) if quantized else call.name
                self.sites.append(
                    Site(call.name, _plain(plain), call.layer, tensor.shape,
                         call.outputs[0] in outputs)
                )  # fmt: skip

    def find(self, name: str) -> Site:
        """The layer of a name.

        Raises:
            InputError: There is none (the message names the nearest), or it cannot be compared.
        """
        for site in self.sites:
            if name in (site.name, site.layer.name) or _plain(name) == site.plain:
                return site
        if name in self.refused:
            raise InputError(
                f"layer '{name}' of the {self.role} cannot be compared", self.refused[name]
            )
        fix = did_you_mean(str(name), [s.name for s in self.sites])
        raise InputError(f"the {self.role} has no layer '{name}'", "", fix)

    def hidden(self) -> list[Site]:
        """Candidates of the automatic pairing, in order of depth."""
        return [
            s for s in self.sites
            if not s.is_output and not type(s.layer).__name__.startswith(_BORDERS)
        ]  # fmt: skip


def _plain(name: str) -> str:
    return name.replace("/", "_")


def bind(feature: Feature, student: Any, teacher: Any) -> BoundFeature:
    """Finds the layers that a feature loss compares.

    Args:
        feature: The loss.
        student: A functional or sequential model of either Keras.
        teacher: Likewise.

    Raises:
        InputError: A layer that does not exist, pairs that do not fit, or none found.
        PlanError: A plan of another model.
    """
    mine, theirs = Sites(student, "student"), Sites(teacher, "teacher")
    if feature.layers == "auto":
        found = _automatic(feature, mine, theirs)
    else:
        names = feature.layers
        items = names.items() if hasattr(names, "items") else [(n, n) for n in names]
        found = [(mine.find(a), theirs.find(b)) for a, b in items]
    plan = getattr(feature, "plan", None)
    kept = {} if plan is None else surviving(teacher, plan)
    kind = flavour(student) or "tf_keras"
    pairs = []
    for a, b in found:
        # Two names that the user gave correspond; two that only share a size do not.
        same = a.plain == b.plain or feature.layers != "auto"
        pairs.append(_pair(feature, a, b, kept.get(b.name) if same else None, kind))
    if plan is not None:
        _use_of_plan(pairs, kept)
    return BoundFeature(feature, tuple(pairs))


def _use_of_plan(pairs: list[Pair], kept: dict[str, np.ndarray]) -> None:
    """Refuses a plan that says nothing about the layers that are compared."""
    if not any(p.teacher.name in kept for p in pairs):
        found = ", ".join(f"'{p.teacher.name}'" for p in pairs)
        raise InputError("the plan does not say which channels these layers keep", found)


def _automatic(feature: Feature, mine: Sites, theirs: Sites) -> list[tuple[Site, Site]]:
    """Pairs by spatial size and depth; see the module."""
    maps = [[s for s in sites.hidden() if len(s.shape) > 2] for sites in (mine, theirs)]
    if feature.embedding:
        return [_embeddings(mine, theirs)]
    if not all(maps) and not feature.needs_positions:
        maps = [sites.hidden() for sites in (mine, theirs)]
    sizes = list(dict.fromkeys(s.size for s in maps[0]))
    found = []
    for size in sizes:
        here = [[s for s in m if s.size == size] for m in maps]
        if not here[1]:
            continue
        names = {s.plain: s for s in here[1]}
        both = [(s, names[s.plain]) for s in here[0] if s.plain in names]
        if None in size and not both:
            continue
        found.append(both[-1] if both else (here[0][-1], here[1][-1]))
    if not found:
        fix = "Name the layers: layers={student name: teacher name}"
        what = f"{type(feature).__name__} finds no layers of one spatial size in both models"
        raise InputError(what, f"{_sizes(maps[0])} and {_sizes(maps[1])}", fix)
    return found


def _embeddings(mine: Sites, theirs: Sites) -> tuple[Site, Site]:
    """The deepest hidden layer of both: by name where they share it, else of equal rank."""
    here = [sites.hidden() for sites in (mine, theirs)]
    if not all(here):
        raise InputError("a model without hidden layers has no features to compare")
    ranks = {len(s.shape) for s in here[1]}
    student = next((s for s in reversed(here[0]) if len(s.shape) in ranks), here[0][-1])
    named = [s for s in here[1] if s.plain == student.plain]
    equal = [s for s in here[1] if len(s.shape) == len(student.shape)]
    return student, (named or equal or here[1])[-1]


def _sizes(sites: list[Site]) -> str:
    return ", ".join(dict.fromkeys(str(s.size) for s in sites)) or "no feature maps"


def _pair(feature: Feature, a: Site, b: Site, keep: np.ndarray | None, kind: str) -> Pair:
    """A pair, with what it needs so that the channels correspond."""
    names = f"'{a.name}' {a.shape} and '{b.name}' {b.shape}"
    what = type(feature).__name__
    if feature.needs_positions and 2 in (len(a.shape), len(b.shape)):
        raise InputError(f"{what} compares positions, and these layers have none", names)
    sized = zip(a.size, b.size, strict=False)
    fits = all(m is None or n is None or m == n for m, n in sized)
    if feature.same_size and not (len(a.shape) == len(b.shape) and fits):
        raise InputError(f"{what} needs layers of one spatial size", names)
    for site in (a, b):
        if getattr(site.layer, "data_format", None) == "channels_first" and len(site.shape) > 2:
            raise InputError("feature losses take channels last", f"layer '{site.name}'")
    if not feature.same_channels:
        return Pair(a, b)
    if keep is not None:
        if len(keep) != a.shape[-1]:
            found = f"{len(keep)} of '{b.name}' by the plan, {a.shape[-1]} in '{a.name}'"
            raise InputError("the student does not have the channels that the plan leaves", found)
        return Pair(a, b, keep if len(keep) < (b.shape[-1] or 0) else None)
    if a.plain == b.plain and a.shape[-1] == b.shape[-1]:
        return Pair(a, b)
    return Pair(a, b, adapter=_adapter(kind, a, b))


def _adapter(kind: str, a: Site, b: Site) -> Any:
    """A linear map of the channels: a 1x1 convolution in any number of dimensions."""
    name = f"adapter_{a.plain}"
    layer = library(kind).layers.Dense(b.shape[-1], use_bias=False, name=name, dtype="float32")
    layer.build((None, a.shape[-1]))
    return layer


def watch(bound: list[BoundFeature]) -> tuple[Watch, Watch]:
    """Watches for the student's and the teacher's layers."""
    pairs = [p for b in bound for p in b.pairs]
    return (
        Watch({p.student.name: p.student.layer for p in pairs}),
        Watch({p.teacher.name: p.teacher.layer for p in pairs}),
    )
