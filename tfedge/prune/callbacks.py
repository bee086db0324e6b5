"""Structured pruning during plain `model.fit`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tfedge._keras import keras
from tfedge.errors import InputError
from tfedge.graph import Analysis, analyse, trace
from tfedge.prune.counted import CountedCalls
from tfedge.prune.importance import Importance
from tfedge.prune.masks import ChannelMasks, learning_rate
from tfedge.prune.plan import PruningPlan
from tfedge.prune.report import PruningReport
from tfedge.prune.request import make_request
from tfedge.prune.schedules import OneShot, Schedule, get_schedule
from tfedge.prune.selection import Selector
from tfedge.prune.shrinking import carry_out, choose, require_prunable


class PruneChannels(keras.callbacks.Callback):
    """Prunes channels while a model trains; `strip()` then removes them.

    ```python
    pruner = PruneChannels(sparsity=0.5)
    model.fit(train, epochs=3, callbacks=[pruner])
    small = pruner.strip()
    ```
    The schedule decides how many channels are held at zero at each step. Which ones is decided by
    their importance at that moment; a channel once dead stays dead. The masks are constraints of
    the weights, inside the training step, so that they hold after every optimizer step, also with
    momentum and `steps_per_execution > 1`. With `steps_per_execution=k` the schedule itself moves
    every k steps, because Keras calls callbacks that often.

    Layers and operations that count channels (layer and group norm, softmax or mean over channels;
    see `ChannelGroup.counted_by`) count the living ones while `fit` runs, so that the model in
    training is the one that `strip()` gives; their `call` is replaced until `fit` ends.

    How many channels each group loses is settled when training begins (with scope="global" by the
    scores of that moment); which ones, by the scores at each update.

    Args:
        sparsity: Fraction of the channels to cut, 0 < s < 1; 0.5 where neither this nor a target
            is given.
        importance: Name in `tfedge.prune.IMPORTANCE`; `Taylor(data)` or `Activation(data)`, which
            run on their data at each update; or a function `(group, weights) -> scores [channels]`.
        schedule: "polynomial" (complete after half of the training), "iterative" (in steps, with
            training in between), "constant", "one_shot", or a function
            `(step, total_steps) -> fraction of the final pruning`.
        round_to: Kept channels are a multiple of this; 1 for an exact share.
        updates: How many times at most the choice of channels is renewed in one `fit`.
        **limits: As in `tfedge.prune.shrink`, without `blocks`: `target_macs`, `target_params`,
            `target_bytes`, `scope`, `floor`, `skip`, `overrides`; `whole`: the model before
            `remove_blocks` made this one of it, to which fractions and plan then refer; and
            `group_lasso`: strength L of
            a penalty L * sum over weights and doomed channels of sqrt(n) * ||w_c||_2 (Yuan & Lin
            2006; Wen et al. 2016), n the number of elements of w_c, that drives the channels which
            are to go to zero before the schedule cuts them. It acts as its proximal step after
            every optimizer step: w_c *= max(0, 1 - learning_rate * L * sqrt(n) / ||w_c||).
            0 (default) for none; 1e-3 to 1e-1 are usual.

    Attributes:
        plan: The PruningPlan, after `strip()`.
        report: The PruningReport, after `strip()`.

    Raises:
        InputError: A bad value, or a group lasso with the schedule "one_shot", which leaves it
            nothing to do; at the start of `fit`: a pattern that matches no layer, or a data set of
            unknown length with a schedule that needs the length.
        ModelError: At the start of `fit`: a model that cannot be pruned.
        PlanError: At the start of `fit`: a request that cannot be met.
    """

    def __init__(
        self,
        sparsity: float | None = None,
        importance: str | Importance = "l2",
        schedule: str | Schedule = "polynomial",
        round_to: int = 8,
        updates: int = 100,
        **limits: Any,
    ) -> None:
        super().__init__()
        self.group_lasso = _check_lasso(limits.pop("group_lasso", 0.0))
        whole = limits.pop("whole", None)
        self._whole = None if whole is None else trace(whole)
        self.request = make_request(sparsity, importance, round_to, limits)
        self.schedule = get_schedule(schedule)
        if self.group_lasso and isinstance(self.schedule, OneShot):
            raise InputError(
                "a group lasso needs time before channels are cut", "schedule 'one_shot'",
                "Use 'polynomial', 'iterative' or 'constant'",
            )  # fmt: skip
        if updates < 1:
            raise InputError("updates must be at least 1", str(updates))
        self.updates = updates
        self.plan: PruningPlan | None = None
        self.report: PruningReport | None = None
        self._student: Any = None
        self._analysis: Analysis | None = None
        self._masks: ChannelMasks | None = None
        self._models: list[Any] = []
        self._goal: list[int] = []
        self._dead: list[np.ndarray] = []
        self._step = self._epoch = self._last_update = 0

    def set_model(self, model: Any) -> None:
        """Analyses the model (or a distiller's student) and installs the masks."""
        super().set_model(model)
        student = getattr(model, "student", model)
        if student is not self._student:
            require_prunable(student)
            self._analysis = analyse(student)
            self._selector = Selector(student, self._analysis, self.request, self._whole)
            self._goal = self._selector.counts()
            self._dead = [np.zeros(g.channels, bool) for g in self._analysis.groups]
            self._student = student
        self._release()
        rate = (lambda: learning_rate(model)) if self.group_lasso else None
        self._masks = ChannelMasks(self._analysis, self.group_lasso, rate)
        self._counted = CountedCalls(self._analysis)
        self._models = list({id(m): m for m in (model, student)}.values())
        self._forget_traces()

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Finds out how long the training is and masks what is dead from the start."""
        steps, epochs = self.params.get("steps"), self.params.get("epochs", 1)
        if steps is None and not isinstance(self.schedule, OneShot):
            self._release()
            raise InputError(
                "the pruning schedule needs to know how many steps an epoch has",
                "a data set of unknown length",
                "Pass steps_per_epoch to fit, or use schedule='one_shot'",
            )
        self._steps_per_epoch = steps or 0
        self._total = max(1, self._steps_per_epoch * epochs)
        self._every = max(1, self._total // self.updates)
        self._step, self._last_update = 0, -self._every
        self._update(force=True)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Remembers the epoch, from which steps are counted."""
        self._epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Moves the masks on where the schedule asks for it."""
        self._step = self._epoch * self._steps_per_epoch + batch
        if self._step - self._last_update >= self._every:
            self._update()

    def on_train_end(self, logs: dict | None = None) -> None:
        """Masks once more (weight averaging may have touched the weights) and lets go of them."""
        if self._masks is not None:
            self._masks.apply()
        self._release()

    def _update(self, force: bool = False) -> None:
        fraction = float(np.clip(self.schedule(self._step, self._total), 0.0, 1.0))
        wanted = [int(np.floor(n * fraction + 1e-9)) for n in self._goal]
        self._last_update = self._step
        more = any(w > d.sum() for w, d in zip(wanted, self._dead, strict=True))
        if (force and any(wanted)) or more or (self.group_lasso and fraction < 1):
            scores = self._selector.scores()
            self._dead = self._choice(scores, wanted)
            if self._masks is not None and self.group_lasso:
                self._masks.doom(self._choice(scores, self._goal))
        if force or more:
            self._apply()

    def _apply(self) -> None:
        if self._masks is not None:
            self._masks.update(self._dead)
            self._counted.update(self._dead)

    def _choice(self, scores: list[np.ndarray], wanted: list[int]) -> list[np.ndarray]:
        """The dead channels of every group, extended to the wanted number."""
        return [
            choose(s, max(n, int(d.sum())), d)
            for s, n, d in zip(scores, wanted, self._dead, strict=True)
        ]

    def _release(self) -> None:
        if self._masks is not None:
            self._masks.remove()
            self._counted.remove()
            self._masks = None
            self._forget_traces()

    def _forget_traces(self) -> None:
        """What was traced with other constraints and calls must not run again."""
        for model in self._models:
            model.train_function = model.test_function = model.predict_function = None

    def get_state(self) -> dict[str, list[int]]:
        """Dead channels by group name: what a resumed training needs."""
        if self._analysis is None:
            return {}
        return {
            g.name: np.flatnonzero(d).tolist()
            for g, d in zip(self._analysis.groups, self._dead, strict=True)
        }

    def set_state(self, state: dict[str, list[int]]) -> None:
        """Takes up the state of an interrupted training; call it after `set_model`.

        Raises:
            InputError: The state is of another model.
        """
        if self._analysis is None:
            raise InputError("the pruner has no model yet", fix="Call set_model first")
        for i, group in enumerate(self._analysis.groups):
            if group.name not in state:
                raise InputError("the pruning state is of another model", f"no '{group.name}'")
            self._dead[i] = np.zeros(group.channels, bool)
            self._dead[i][state[group.name]] = True
        self._apply()

    def strip(self) -> Any:
        """Removes the pruned channels physically.

        Where the training ended before the schedule did, the channels still missing are chosen by
        their importance now, so that the result has the size that was asked for.

        Returns:
            A new model of the same Keras, not compiled, with fewer channels; `plan` and `report`
            are set.

        Raises:
            InputError: `fit` has not run with this callback.
        """
        if self._analysis is None:
            raise InputError(
                "there is nothing to strip",
                "a pruner that no fit has used",
                "Run model.fit(..., callbacks=[pruner]) first, or use tfedge.prune.shrink",
            )
        self._release()
        self._dead = self._choice(self._selector.scores(), self._goal)
        self.plan = self._selector.plan([np.flatnonzero(d) for d in self._dead])
        done = carry_out(self._selector.whole, self.plan, self._analysis)
        self.report = replace(done.report, approximate=tuple(self._counted.left))
        return done.model


def _check_lasso(strength: Any) -> float:
    if isinstance(strength, bool) or not isinstance(strength, (int, float)) or not strength >= 0:
        raise InputError("group_lasso must be 0 or a positive number", str(strength))
    return float(strength)
