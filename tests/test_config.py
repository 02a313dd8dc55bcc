"""Settings files are code: every one in the repository is read and built; what is wrong in one is
named at once."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from worlds import SKELETONS, wander_store

import pretrain.run
from finetune.heads import build_head
from finetune.search.space import examples
from finetune.settings import TASKS, Tuning, task_file
from pretrain.components import build
from pretrain.config import (
    RECIPES,
    SCALES,
    Optimiser,
    Recipe,
    Scale,
    make,
    override,
    parse_overrides,
    plain,
    read,
)
from pretrain.encoders import build_embedder
from pretrain.errors import BadInput
from pretrain.objectives import AbstractObjective

RECIPE_FILES = sorted(RECIPES.rglob("*.yaml"))
CLUSTER_FILES = sorted((SCALES / "clusters").rglob("*.yaml"))
SCALE_FILES = sorted(set(SCALES.rglob("*.yaml")) - set(CLUSTER_FILES))
TASK_FILES = sorted(TASKS.rglob("*.yaml"))


def by_name(files: list[Path]) -> Any:
    return pytest.mark.parametrize("file", files, ids=lambda file: file.stem)


def test_the_folders_hold_what_is_promised() -> None:
    assert {"contrastive"} <= {file.stem for file in RECIPE_FILES}
    assert {"laptop", "single_node", "multi_node"} <= {file.stem for file in SCALE_FILES}
    assert {"default", "classic_classification", "annotation_style_transfer", "new_behaviors"} <= {
        file.stem for file in TASK_FILES
    }
    others = [file for folder in (RECIPES, SCALES, TASKS) for file in folder.rglob("*.yml")]
    assert not others, "settings files end in .yaml, else nobody finds them"


@by_name(RECIPE_FILES)
def test_every_recipe_builds_its_network_and_loss(file: Path) -> None:
    recipe = read(Recipe, str(file), RECIPES, {})
    for schema in SKELETONS.values():
        torch.manual_seed(recipe.seed)
        embedder = build_embedder(schema, features=recipe.features, encoder=recipe.encoder)
        objective: AbstractObjective = build(
            "pretrain.objectives", recipe.objective, AbstractObjective, embedder.dim, schema
        )
        assert objective.views >= 1
    again = make(Recipe, json.loads(json.dumps(plain(recipe))), about="again")
    assert plain(again) == plain(recipe), "a recipe must survive the way to the workers"


@by_name(RECIPE_FILES)
def test_a_recipe_opens_with_its_command(file: Path) -> None:
    first = file.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# "), "the first line says how to run it"
    assert f"--recipe {file.stem}" in first or "make " in first


@by_name(SCALE_FILES)
def test_every_scale_is_read(file: Path) -> None:
    scale = read(Scale, str(file), SCALES, {})
    assert plain(make(Scale, plain(scale), about="again")) == plain(scale)


@by_name(CLUSTER_FILES)
def test_every_cluster_file_is_yaml_with_keys(file: Path) -> None:
    assert all(
        isinstance(document, dict)
        for document in yaml.safe_load_all(file.read_text(encoding="utf-8"))
    )


@by_name(TASK_FILES)
def test_every_task_is_read_and_every_choice_of_its_search_builds(file: Path) -> None:
    tuning = read(Tuning, str(file), TASKS, {})
    read(Recipe, tuning.recipe, RECIPES, {})
    for choice in examples(tuning.search):
        build_head(tuning.with_choice(choice).head, 8, [4])
    build_head(tuning.head, 8, [4])


def test_recipe_scale_and_task_own_different_keys() -> None:
    recipe, scale, tuning = (set(kind.__dataclass_fields__) for kind in (Recipe, Scale, Tuning))
    assert not recipe & scale
    assert not tuning & scale


def write(folder: Path, text: str) -> str:
    file = folder / "mine.yaml"
    file.write_text(text, encoding="utf-8")
    return str(file)


GOOD = "encoder: {name: tcn}\nobjective: {name: contrastive}\n"


def test_a_name_or_a_file_will_do(tmp_path: Path) -> None:
    assert read(Recipe, write(tmp_path, GOOD), RECIPES, {}).batch == 64
    assert read(Recipe, "contrastive", RECIPES, {}).encoder["name"] == "tcn"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "epoch: 3", ["unknown key 'epoch'", "epochs"]),
        (GOOD + "batch: many", ["batch is 'many'; it must be a whole number"]),
        (GOOD + "batch: 3.0", ["batch is 3.0"]),
        (GOOD + "batch: true", ["batch is True"]),
        (GOOD + "batch: 0", ["batch is 0; it must be at least 1"]),
        (GOOD + "window: 5000", ["window is 5000 frames; it must lie in 2…1024"]),
        (GOOD + "precision: float16", ["precision is 'float16'", "bf16"]),
        (GOOD + "optimiser: {lr: 1e-3}", ["lr is '1e-3'", "YAML reads 1e-3 as text"]),
        (GOOD + "optimiser: {lr: 0}", ["lr is 0; it must be above 0"]),
        (GOOD + "optimiser: {lr: .nan}", ["lr is nan"]),
        (
            GOOD + "optimiser: {momentum: 0.9}",
            ["optimiser", "unknown key 'momentum'", "weight_decay"],
        ),
        (GOOD + "optimiser: fast", ["optimiser is 'fast'; it must hold keys and values"]),
        (GOOD + "augment: {mirror: 2.0}", ["mirror is 2.0; it must lie in 0…1"]),
        (GOOD + "workers: 2", ["unknown key 'workers'"]),
        ("objective: {name: contrastive}", ["encoder is required"]),
        ("encoder: tcn\nobjective: {name: contrastive}", ["encoder is 'tcn'"]),
        ("encoder: {width: 3}\nobjective: {name: contrastive}", ["encoder needs a `name`"]),
        ("encoder: [", ["cannot be read as YAML"]),
        ("- 1\n- 2", ["must hold keys and values; it holds a list"]),
        ("3: 4", ["unknown key 3"]),
    ],
)
def test_what_is_wrong_in_a_recipe_is_named(tmp_path: Path, text: str, message: list[str]) -> None:
    with pytest.raises(BadInput) as caught:
        read(Recipe, write(tmp_path, text), RECIPES, {})
    for part in message:
        assert part in str(caught.value)


def test_all_errors_come_at_once(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as caught:
        read(
            Recipe,
            write(tmp_path, "encoder: tcn\nbatch: x\noptimiser: {lr: y, momentum: 1}\nepoch: 1"),
            RECIPES,
            {},
        )
    for part in (
        "encoder is 'tcn'",
        "batch is 'x'",
        "lr is 'y'",
        "'momentum'",
        "'epoch'",
        "objective is required",
        "mine.yaml",
    ):
        assert part in str(caught.value)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes(b"\xff\xfe\x00bad")
    with pytest.raises(BadInput, match="cannot be read as YAML"):
        read(Recipe, str(tmp_path / "mine.yaml"), RECIPES, {})


@pytest.mark.parametrize(
    ("kind", "folder", "known"),
    [(Recipe, RECIPES, "contrastive"), (Scale, SCALES, "laptop"), (Tuning, TASKS, "default")],
)
def test_an_unknown_name_lists_those_there_are(kind: type, folder: Path, known: str) -> None:
    with pytest.raises(
        BadInput, match=f"there is no {kind.__name__.lower()} 'nonsense'.*there are: .*{known}"
    ):
        read(kind, "nonsense", folder, {})


def test_a_directory_is_no_settings_file(tmp_path: Path) -> None:
    (tmp_path / "d.yaml").mkdir()
    with pytest.raises(BadInput, match="there is no recipe"):
        read(Recipe, str(tmp_path / "d.yaml"), RECIPES, {})


@pytest.mark.parametrize(
    "wrong",
    [
        {"workers": 0},
        {"workers": 1.5},
        {"workers": [2]},
        {"workers": [3, 2]},
        {"gpu": "yes"},
        {"cpus": 0},
        {"cpus_per_worker": 0},
        {"retries": -1},
        {"resident_gb": -1},
        {"concurrent_trials": 0},
        {"address": 3},
        {"gpus_per_trial": 0},
        {"checkpoint_steps": -1},
    ],
)
def test_a_scale_that_cannot_be_is_refused(wrong: Mapping[str, Any]) -> None:
    (key,) = wrong
    with pytest.raises(BadInput, match=key):
        make(Scale, wrong, about="a scale")


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(BadInput, match=rf"seed is {seed}; it must lie in"):
        read(Recipe, "contrastive", RECIPES, {"seed": seed})
    with pytest.raises(BadInput, match=rf"first_seed is {seed}; it must lie in"):
        Tuning(first_seed=seed)


# -- --set -----------------------------------------------------------------------------------------


def test_set_reaches_recipe_and_scale() -> None:
    for_recipe, for_scale = parse_overrides(
        [
            "optimiser.lr=1e-3",
            "workers=2",
            "encoder.width=48",
            "features.lags=[2, 4]",
            "gpu=true",
            "storage=null",
            "encoder.name=tcn",
        ],
        Recipe,
        Scale,
    )
    recipe, scale = (
        read(Recipe, "contrastive", RECIPES, for_recipe),
        read(Scale, "laptop", SCALES, for_scale),
    )
    assert (recipe.optimiser.lr, recipe.encoder["width"], recipe.features["lags"]) == (
        0.001,
        48,
        [2, 4],
    )
    assert recipe.optimiser.weight_decay == 0.01, "what was not set stays"
    assert (scale.workers, scale.gpu, scale.storage) == (2, True, None)


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("batch", "write it as key=value"),
        ("batsh=3", "unknown key 'batsh'; allowed: recipe: augment, batch"),
        ("=3", "unknown key ''"),
        ("batch=[1", "cannot read the value"),
    ],
)
def test_a_pair_that_cannot_be_is_refused(pair: str, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse_overrides([pair, "epochs=3", "nonsense"], Recipe, Scale)
    assert message in str(caught.value)
    assert "nonsense" in str(caught.value), "all errors at once"


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("batch=x", "batch is 'x'"),
        ("optimiser.speed=3", "unknown key 'speed'"),
        ("batch.size=3", "'batch' holds a value, not keys"),
        ("optimiser=3", "optimiser is 3"),
        ("batch=", "batch is None"),
        ("optimiser.lr=nan", "lr is 'nan'"),
    ],
)
def test_a_value_that_does_not_fit_is_refused(pair: str, message: str) -> None:
    (for_recipe,) = parse_overrides([pair], Recipe)
    with pytest.raises(BadInput) as caught:
        read(Recipe, "contrastive", RECIPES, for_recipe)
    assert message in str(caught.value)
    assert "--set" in str(caught.value)


def test_set_does_not_change_what_is_read_next() -> None:
    read(Recipe, "contrastive", RECIPES, {"encoder.width": 8, "batch": 2})
    assert read(Recipe, "contrastive", RECIPES, {}).batch != 2
    assert read(Recipe, "contrastive", RECIPES, {}).encoder.get("width") != 8


@pytest.mark.parametrize("order", [1, -1])
def test_the_settings_of_a_component_go_with_it(
    order: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    pairs = ["encoder.name=conv1d", "encoder.dim=12", "objective.name=masked", "objective.block=4"]
    (for_recipe,) = parse_overrides(pairs[::order], Recipe)
    recipe = read(Recipe, "contrastive", RECIPES, for_recipe)
    assert recipe.encoder == {"name": "conv1d", "dim": 12}
    assert recipe.objective == {"name": "masked", "block": 4}
    before = read(Recipe, "contrastive", RECIPES, {})
    for kind, name in (("encoder", "conv1d"), ("objective", "masked")):
        (line,) = [line for line in caplog.messages if line.startswith(f"{kind} is {name}")]
        for key, value in getattr(before, kind).items():
            assert key == "name" or f"{key}={value}" in line
    build_embedder(SKELETONS["mice"], features=recipe.features, encoder=recipe.encoder)


def test_the_same_component_keeps_its_settings(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    before = read(Recipe, "contrastive", RECIPES, {})
    changes = {"encoder.width": 8, "encoder.name": "tcn"}
    recipe = read(Recipe, "contrastive", RECIPES, changes)
    assert recipe.encoder == {**before.encoder, "width": 8}
    assert not caplog.messages


def test_a_setting_of_another_component_is_still_refused() -> None:
    recipe = read(Recipe, "contrastive", RECIPES, {"encoder.width": 8, "encoder.name": "conv1d"})
    with pytest.raises(BadInput, match="unknown setting 'width'"):
        build_embedder(SKELETONS["mice"], features=recipe.features, encoder=recipe.encoder)


def test_a_whole_mapping_comes_before_its_keys() -> None:
    changes = {"encoder.layers": 2, "encoder": {"name": "tcn", "width": 8}}
    recipe = read(Recipe, "contrastive", RECIPES, changes)
    assert recipe.encoder == {"name": "tcn", "width": 8, "layers": 2}


def test_a_feature_called_name_is_no_component() -> None:
    values = {"features": {"external": {"name": 3, "clip": 512}}}
    assert override(values, {"features.external.name": 4}, about="--set") == []
    assert values["features"]["external"] == {"name": 4, "clip": 512}


def test_the_settings_of_a_head_go_with_it(tmp_path: Path) -> None:
    task = write(tmp_path, "head: {name: temporal, width: 64}")
    (changes,) = parse_overrides(["head.dropout=0.1", "head.name=mlp"], Tuning)
    tuning = read(Tuning, task, TASKS, changes)
    assert tuning.head == {"name": "mlp", "dropout": 0.1}
    assert read(Tuning, task, TASKS, {}).with_choice({"head.name": "linear"}).head == {
        "name": "linear"
    }


def test_an_encoder_brings_the_groups_along_that_it_needs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = read(Recipe, "contrastive", RECIPES, {}).features
    assert "scene" not in before["groups"]
    recipe = read(Recipe, "contrastive", RECIPES, {"encoder.name": "msg3d"})
    assert recipe.features == {**before, "groups": [*before["groups"], "scene"]}
    store = wander_store(tmp_path / "store", [200])
    pretrain.run.main(["--data", store.uri, "--set", "encoder.name=msg3d", "--dry-run"])
    assert json.loads(capsys.readouterr().out)["recipe"] == plain(recipe)


# -- the schedule, tasks ---------------------------------------------------------------------------


def test_the_rate_rises_then_falls_as_a_cosine() -> None:
    optimiser = Optimiser(warmup=0.1)
    rates = [optimiser.rate(step, 100) for step in range(100)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10:] == pytest.approx(
        [0.5 * (1 + math.cos(math.pi * step / 90)) for step in range(90)]
    )
    assert Optimiser(warmup=0.0).rate(0, 1) > 0, "a run of one step must learn"
    assert Optimiser(warmup=1.0).rate(9, 10) == 1


def test_a_task_has_its_own_file_or_the_default() -> None:
    assert task_file("new_behaviors") == "new_behaviors"
    assert task_file("S1") == "default"
    for wrong in ("", "a/b"):
        with pytest.raises(BadInput, match="--task"):
            task_file(wrong)


@pytest.mark.parametrize(
    "search",
    [
        {"lr": []},
        {"lr": {"low": 2, "high": 1}},
        {"lr": {"low": 0, "high": 1, "log": True}},
        {"lr": 3},
    ],
)
def test_a_search_space_that_cannot_be_is_refused(search: Mapping[str, Any]) -> None:
    with pytest.raises(BadInput, match="search key 'lr'"):
        make(Tuning, {"search": search}, about="tuning")


def test_a_searched_key_that_does_not_exist_is_refused() -> None:
    with pytest.raises(BadInput, match="unknown key 'speed'"):
        Tuning().with_choice({"speed": 3})
    assert Tuning().with_choice({"head.width": 3}).head == {"name": "temporal", "width": 3}
