"""Recipes: a list of stages as frozen data, read strictly from YAML.

A recipe file:

    name: fashion_mnist_prune50_w8a8
    seed: 1
    data: fashion_mnist          # or task: module:function
    stages:
      - {stage: prune, sparsity: 0.5}
      - {stage: convert, schemes: [w8a8]}

Stages, their keys and their legal order stand in `tfedge.specs`. An unknown key is an error with a
suggestion; nothing is silently ignored. This module is the only one that imports yaml.
"""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tfedge.errors import RecipeError, did_you_mean
from tfedge.specs import STAGES, StageSpec, check_order, stage_from_dict

RECIPE_KEYS = ("name", "seed", "data", "task", "model", "stages")


@dataclass(frozen=True)
class Recipe:
    """What `compress` does.

    Attributes:
        name: Name of the recipe, for reports.
        seed: Seed of all randomness, 0 to 2**31 - 1.
        stages: Stage specs in order.
        data: Data spec: a known data set, an npz file, an image folder; or None.
        task: "module:function" that returns a Task; or None. Not together with `data`.
        model: Path of the model to compress; or None where the `train` stage makes it.

    Raises:
        RecipeError: A bad value, or stages in an order that loses work.
    """

    name: str
    seed: int
    stages: tuple[StageSpec, ...]
    data: str | None = None
    task: str | None = None
    model: str | None = None

    def __post_init__(self) -> None:
        for key in ("name", "data", "task", "model"):
            value = getattr(self, key)
            if not (isinstance(value, str) and value or value is None and key != "name"):
                raise RecipeError(f"{key} must be text", f"{value!r}")
        whole = isinstance(self.seed, int) and not isinstance(self.seed, bool)
        if not whole or not 0 <= self.seed < 2**31:
            raise RecipeError("seed must be a whole number from 0 to 2**31 - 1", f"{self.seed!r}")
        if self.data and self.task:
            raise RecipeError(
                "a recipe has either data or task", f"data '{self.data}' and task '{self.task}'"
            )
        if not self.stages:
            raise RecipeError("a recipe needs at least one stage", "an empty list")
        check_order(tuple(s.stage for s in self.stages))


def from_dict(value: Any) -> Recipe:
    """Builds a recipe from plain data.

    Args:
        value: A mapping with the keys of `RECIPE_KEYS`; `name` and `stages` are required.

    Raises:
        RecipeError: An unknown key, a missing key, a bad value, a refused order.
    """
    if not isinstance(value, Mapping):
        raise RecipeError(
            "a recipe is a mapping of keys", type(value).__name__, "See configs/ for examples"
        )
    for key in value:
        if key not in RECIPE_KEYS:
            raise RecipeError(f"unknown key '{key}'", "", did_you_mean(str(key), RECIPE_KEYS))
    for key in ("name", "stages"):
        if key not in value:
            raise RecipeError(f"the recipe has no '{key}'", ", ".join(map(str, value)))
    stages = value["stages"]
    if not isinstance(stages, (list, tuple)):
        raise RecipeError("stages must be a list", type(stages).__name__)
    specs = tuple(stage_from_dict(s, f"stages.{i}") for i, s in enumerate(stages))
    rest = {k: v for k, v in value.items() if k not in ("stages", "seed")}
    return Recipe(stages=specs, seed=value.get("seed", 0), **rest)


def to_dict(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain data, defaults left out; `from_dict` gives an equal recipe."""
    out: dict[str, Any] = {"name": recipe.name, "seed": recipe.seed}
    for key in ("data", "task", "model"):
        if getattr(recipe, key) is not None:
            out[key] = getattr(recipe, key)
    out["stages"] = [s.to_dict() for s in recipe.stages]
    return out


def dump(recipe: Recipe) -> str:
    """The recipe as YAML text; `parse` gives an equal recipe."""
    return yaml.safe_dump(to_dict(recipe), sort_keys=False, width=100)


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key written twice (plain YAML keeps the last one in silence)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                line = key_node.start_mark.line + 1
                raise RecipeError(f"the key '{key}' is written twice", f"again in line {line}")
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(text: str, origin: str = "recipe") -> Any:
    """Parses YAML into plain data.

    Args:
        text: YAML text.
        origin: File name for messages.

    Raises:
        RecipeError: Not YAML (the message holds the line), or a key written twice.
    """
    try:
        return yaml.load(text, Loader=_StrictLoader)  # noqa: S506 (a SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "unreadable"
        raise RecipeError(f"{origin} is not a YAML file", f"{problem} {place}".strip()) from None
    except TypeError:
        raise RecipeError(f"{origin} has a key that is not a word") from None


def read_file(path: str | Path) -> Any:
    """Reads a recipe file as plain data, not yet checked as a recipe.

    Raises:
        RecipeError: The file is missing or not YAML.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not a text file"
        raise RecipeError("cannot read the recipe", f"{path}: {why}") from None
    return read_yaml(text, path.name)


def load(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Reads a recipe file.

    Args:
        path: YAML file.
        overrides: "key=value" texts, as in `with_overrides`.

    Raises:
        RecipeError: The file is missing, not YAML, or not a recipe; the message says where.
    """
    return from_dict(with_overrides(read_file(path), overrides))


def with_overrides(recipe: Any, overrides: Sequence[str]) -> Any:
    """Sets single values of a recipe's plain data.

    Args:
        recipe: Plain data of a recipe; it is not changed.
        overrides: Texts "path=value". A path is keys and list positions joined by dots, for
            example "stages.0.sparsity"; the value is YAML. Whatever follows a prune stage's
            "overrides." is one key, so it may hold dots itself.

    Returns:
        A changed copy. A key that the file leaves out (its default holds) can be set as well.

    Raises:
        RecipeError: No "=", or a path that does not exist, with the nearest one that does.
    """
    recipe = copy.deepcopy(recipe)
    for text in overrides:
        path, sign, value = text.partition("=")
        if not sign or not path:
            raise RecipeError("--set needs path=value", f"'{text}'", "--set stages.0.sparsity=0.6")
        _set(recipe, path.strip(), read_yaml(value, f"the value of {path}"))
    return recipe


def _set(recipe: Any, path: str, value: Any) -> None:
    """Sets one value in place."""
    head, _, rest = path.partition(".")
    if not isinstance(recipe, dict):
        raise RecipeError("a recipe is a mapping of keys", type(recipe).__name__)
    if head not in RECIPE_KEYS:
        raise RecipeError(f"--set: no key '{head}'", "", did_you_mean(head, RECIPE_KEYS))
    if not rest:
        recipe[head] = value
        return
    if head != "stages":
        raise RecipeError(f"--set: '{head}' has no keys of its own", f"'{path}'")
    number, _, key = rest.partition(".")
    stages = recipe.get("stages")
    count = len(stages) if isinstance(stages, list) else 0
    if not number.isdecimal() or int(number) >= count:
        raise RecipeError(
            f"--set: no stage '{number}'", f"'{path}'", f"Stages are counted 0 to {count - 1}"
        )
    _set_in_stage(recipe, int(number), key, value)


def _set_in_stage(recipe: dict[str, Any], number: int, key: str, value: Any) -> None:
    """Sets one key (or one entry of a key) of a stage in place; no key sets the whole stage."""
    if not key:
        recipe["stages"][number] = value
        return
    stage, place = recipe["stages"][number], f"stages.{number}"
    cls = STAGES.get(str(stage.get("stage"))) if isinstance(stage, dict) else None
    if cls is None:
        stage_from_dict(stage, place)  # raises what is wrong with it
        raise RecipeError(f"--set: {place} is not a stage")
    head, _, rest = key.partition(".")
    known = ("stage", *cls.key_names())
    if head not in known:
        raise RecipeError(f"--set: {place} has no key '{head}'", "", did_you_mean(head, known))
    if not rest:
        stage[head] = value
    elif head == "overrides":
        stage[head] = {**(stage.get(head) or {}), rest: value}
    else:
        _set_in_list(stage, f"{place}.{head}", rest, value)


def _set_in_list(stage: dict[str, Any], place: str, position: str, value: Any) -> None:
    """Sets one entry of a list in place."""
    entries = stage.get(place.rpartition(".")[2])
    if not isinstance(entries, list) or not position.isdecimal() or int(position) >= len(entries):
        found = f"{len(entries)} entries" if isinstance(entries, list) else "no list in the file"
        raise RecipeError(f"--set: {place} has no entry '{position}'", found, "Set the whole list")
    entries[int(position)] = value
