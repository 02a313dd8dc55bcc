"""What is kept of a run comes back as it was, or is refused by name; no code in it is run."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from worlds import MICE, RATS, embedder_of, windows_of

from pretrain.components import names
from pretrain.encoders import Embedder, build_embedder
from pretrain.errors import BadInput
from pretrain.train.checkpoint import (
    find_encoder,
    load_encoder,
    load_state,
    save_encoder,
    save_state,
)
from pretrain.train.learner import restore

WINDOWS = windows_of(MICE, batch=3, frames=24)


@pytest.fixture
def kept(tmp_path: Path) -> tuple[Path, Embedder]:
    made = embedder_of(MICE, "tcn", WINDOWS.pose).eval()
    save_encoder(tmp_path / "run" / "encoder", made, made_by={"step": 7})
    return tmp_path / "run" / "encoder", made


@pytest.mark.parametrize("encoder", names("pretrain.encoders"))
def test_an_encoder_comes_back_as_it_was(tmp_path: Path, encoder: str) -> None:
    made = embedder_of(MICE, encoder, WINDOWS.pose)
    made.train().embed(WINDOWS)  # what a network counts while it trains belongs to it
    save_encoder(tmp_path, made, made_by={"step": 7})
    back, about = load_encoder(tmp_path, MICE)
    assert about["made_by"] == {"step": 7}
    assert about["dim"] == made.dim == back.dim
    assert not back.training
    assert torch.equal(back.embed(WINDOWS), made.eval().embed(WINDOWS))


def test_a_folder_that_calls_extra_features_beside_still_opens(tmp_path: Path) -> None:
    made = build_embedder(
        MICE, features={}, encoder={"name": "handmade"}, extra_features={"sound": 2}
    )
    made.extra_mean_E.fill_(3)
    save_encoder(tmp_path, made, made_by={})
    about = (tmp_path / "encoder.json").read_text()
    assert "beside" not in about
    (tmp_path / "encoder.json").write_text(about.replace('"extra_features"', '"beside"'))
    file = tmp_path / "encoder.safetensors"
    weights = safetensors.torch.load_file(file)
    safetensors.torch.save_file(
        {name.replace("extra_", "beside_"): weight for name, weight in weights.items()}, file
    )
    back, _ = load_encoder(tmp_path)
    assert back.external == {"sound": 2}
    assert torch.equal(back.extra_mean_E, made.extra_mean_E)


def test_the_folder_of_a_run_will_do(kept: tuple[Path, Embedder]) -> None:
    folder, _ = kept
    assert find_encoder(folder) == find_encoder(folder.parent) == folder
    with pytest.raises(BadInput, match="there is no encoder at"):
        find_encoder(folder.parent.parent)


def test_another_skeleton_shows_both_lists(kept: tuple[Path, Embedder]) -> None:
    with pytest.raises(BadInput) as caught:
        load_encoder(kept[0], RATS)
    for name in (*MICE.keypoints, *RATS.keypoints, str(kept[0])):
        assert name in str(caught.value)
    with pytest.raises(BadInput, match="trained at 30 frames/s, the store has 25"):
        load_encoder(kept[0], replace(MICE, fps=25.0))
    load_encoder(kept[0], replace(MICE, image_px=(640.0, 480.0)))


def without(key: str) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        about = json.loads((folder / "encoder.json").read_text())
        del about[key]
        (folder / "encoder.json").write_text(json.dumps(about))

    return damage


def changed(**values: object) -> Callable[[Path], object]:
    return lambda folder: (folder / "encoder.json").write_text(
        json.dumps(json.loads((folder / "encoder.json").read_text()) | values)
    )


def truncated(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-40])


@pytest.mark.parametrize(
    "damage",
    [
        truncated("encoder.json"),
        truncated("encoder.safetensors"),
        lambda folder: (folder / "encoder.safetensors").unlink(),
        without("schema"),
        without("features"),
        without("encoder"),
        without("version"),
        changed(encoder={"name": "tcn", "width": 17, "layers": 3}),
        changed(encoder={"name": "gone"}),
        changed(version=99),
        changed(schema=[]),
        changed(encoder=None),
        lambda folder: (folder / "encoder.json").write_text("[]"),
    ],
)
def test_a_damaged_encoder_is_refused_by_name(
    kept: tuple[Path, Embedder], damage: Callable[[Path], object]
) -> None:
    damage(kept[0])
    with pytest.raises(BadInput) as caught:
        load_encoder(kept[0], MICE)
    assert str(kept[0]) in str(caught.value) or "gone" in str(caught.value)


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    network = torch.nn.Linear(3, 2)
    optimiser = torch.optim.AdamW(network.parameters())
    network(torch.ones(3)).sum().backward()
    optimiser.step()
    state = {
        "learner": network.state_dict(),
        "optimiser": optimiser.state_dict(),
        "at": {"epoch": 1, "step": 2, "seconds": 0.5},
    }
    save_state(tmp_path / "state", state)
    back = load_state(tmp_path / "state")
    assert back["at"] == state["at"]
    assert torch.equal(back["learner"]["weight"], network.weight)
    moments = back["optimiser"]["state"][0]
    assert torch.equal(moments["exp_avg"], optimiser.state_dict()["state"][0]["exp_avg"])


def test_a_state_is_whole_or_refused(tmp_path: Path) -> None:
    save_state(tmp_path, {"at": {"epoch": 1}, "learner": {"w": torch.ones(1000)}})
    (tmp_path / "complete").unlink()
    with pytest.raises(BadInput, match="not complete"):
        load_state(tmp_path)
    (tmp_path / "complete").touch()
    truncated("state.pt")(tmp_path)
    with pytest.raises(BadInput, match="is damaged"):
        load_state(tmp_path)
    with pytest.raises(BadInput, match="not complete"):
        load_state(tmp_path / "nowhere")


class Evil:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.file),)


def test_no_code_in_a_state_is_run(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    (tmp_path / "complete").touch()
    for write in (
        lambda f: torch.save({"at": Evil(ran)}, f),
        lambda f: f.write_bytes(pickle.dumps(Evil(ran), protocol=2)),
    ):
        write(tmp_path / "state.pt")
        with pytest.raises(BadInput, match="is damaged"):
            load_state(tmp_path)
    assert not ran.exists()
    pickle.loads(pickle.dumps(Evil(ran)))
    assert ran.exists(), "the trap would have worked"


def test_a_checkpoint_of_another_network_is_refused_in_words() -> None:
    learner = torch.nn.Linear(2, 3)
    restore(learner, {name: x + 1 for name, x in learner.state_dict().items()})
    with pytest.raises(BadInput, match="finish the run with that release, or choose another --out"):
        restore(learner, torch.nn.Linear(2, 4).state_dict())
