"""Stores on S3: written, read, extended and checked on a server that speaks S3, which the test
starts and stops on loopback."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from worlds import MICE, marked, wander_store

from pretrain import prepare
from pretrain import run as pretraining
from pretrain.data import store_writer as stores
from pretrain.data.schema import Video
from pretrain.data.store import Store, filesystem
from pretrain.data.store_writer import StoreWriter
from pretrain.errors import BadInput, exit_status
from pretrain.redact import write_json
from pretrain.runs.folder import open_run_folder

pytest.importorskip("moto.server", reason="moto is not installed: pip install -e '.[dev]'")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The server's host:port."""
    from moto.server import ThreadedMotoServer

    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with contextlib.redirect_stderr(None):
        running.start()
    host, port = running.get_host_and_port()
    yield f"{host}:{port}"
    running.stop()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket's address without the endpoint; the environment names that, and credentials."""
    import boto3

    for name, value in {
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{server}",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket="lab")
    for held in client.list_objects_v2(Bucket="lab").get("Contents", []):
        client.delete_object(Bucket="lab", Key=held["Key"])
    return "s3://lab"


def keys() -> set[str]:
    import boto3

    return {
        held["Key"] for held in boto3.client("s3").list_objects_v2(Bucket="lab").get("Contents", [])
    }


def write(address: str, *numbers: int, append: bool = False) -> None:
    with StoreWriter(address, MICE, origin="marked", append=append) as writer:
        for number in numbers:
            features = {"a": np.full((50, 2), number, np.float32)}
            writer.add(Video(**(vars(marked(number, 50)) | {"features": features})))


@pytest.mark.parametrize("how", ["environment", "query"])
def test_a_store_is_written_read_and_extended(
    bucket: str, server: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"{bucket}/deep/{how}"
    if how == "query":
        monkeypatch.delenv("AWS_ENDPOINT_URL")
        address += f"?endpoint_override={server}&scheme=http&region=us-east-1"
    write(address, 0, 1)
    write(address, 2, append=True)
    store = Store(address)
    assert store.verify() == []
    assert (store.frames, len(store.parts)) == (150, 2)
    for number in range(3):
        video = store.read_video(f"video {number}")
        np.testing.assert_array_equal(
            video.position_TMKX[:, 0, 0], np.stack([np.full(50, number), np.arange(50)], -1)
        )
        assert (video.features["a"] == number).all()
    with pytest.raises(BadInput, match="already holds a store"):
        write(address, 3)


def test_a_write_that_fails_leaves_nothing(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "PART_BYTES", 1)

    def half(address: str, append: bool) -> None:
        with StoreWriter(address, MICE, origin="", append=append) as writer:
            writer.add(
                Video(**(vars(marked(7, 50)) | {"features": {"b": np.zeros((50, 2), np.float32)}}))
            )
            assert {key for key in keys() if key.endswith(".parquet")} > before, (
                "the world wrote no part before the error"
            )
            raise RuntimeError("in the middle")

    before: set[str] = set()
    with pytest.raises(RuntimeError):
        half(f"{bucket}/fresh", False)
    assert not {key for key in keys() if key.startswith("fresh")}
    with pytest.raises(BadInput, match="there is no store"):
        Store(f"{bucket}/fresh")
    write(f"{bucket}/fresh", 0)
    before = {key for key in keys() if key.endswith(".parquet")}
    with pytest.raises(RuntimeError):
        half(f"{bucket}/fresh", True)
    assert {key for key in keys() if not key.endswith("/")} == before | {"fresh/store.json"}
    assert Store(f"{bucket}/fresh").verify() == []


def test_commands_take_the_address(
    bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    local = wander_store(tmp_path / "local", [300, 200])
    prepare.main(["export", local.uri, "--out", str(tmp_path / "files")])
    words = ["tracks", "--fps", "30", "--out", f"{bucket}/store"]
    prepare.main([*words, "--poses", str(tmp_path / "files/tracks/video 0.npz")])
    prepare.main([*words, "--poses", str(tmp_path / "files/tracks/video 1.npz"), "--append"])
    prepare.main(["check", f"{bucket}/store", "--picture", str(tmp_path / "check.png")])
    said = capsys.readouterr().out
    assert "500 frames" in said
    assert "whole: every checksum is right" in said
    assert (tmp_path / "check.png").is_file()
    pretraining.main(["--data", f"{bucket}/store", "--out", str(tmp_path / "run"), "--dry-run"])
    plan = json.loads(capsys.readouterr().out)
    assert (plan["data"], plan["arithmetic"]["frames"]) == (f"{bucket}/store", 500)


def test_what_is_wrong_is_said(bucket: str, server: str) -> None:
    with pytest.raises(
        BadInput,
        match=r"cannot write to s3://nobodys-bucket/store|cannot write .* of the store s3://nobodys-bucket",
    ):
        write("s3://nobodys-bucket/store", 0)
    with pytest.raises(BadInput, match=r"there is no store at s3://lab/nowhere"):
        Store(f"{bucket}/nowhere")
    with pytest.raises(BadInput, match="Unexpected query parameter"):
        Store(f"{bucket}/store?nonsense=1")
    assert not keys()


def test_a_bucket_that_is_not_there_is_said_before_anything_starts(
    bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = wander_store(tmp_path / "store", [200])
    words = ["--data", store.uri, "--out", str(tmp_path / "run")]
    words += ["--set", "storage=s3://nobody/runs"]
    assert exit_status(lambda: pretraining.main(words)) == 2
    assert "cannot write to s3://nobody/runs: Bucket 'nobody' not found" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "address",
    [
        "gs://anonymous@bucket/folder/store",
        "gs://anonymous@bucket/folder/store/?retry_limit_seconds=1",
    ],
)
def test_an_address_at_google_is_understood(address: str) -> None:
    system, path = filesystem(address)
    assert (system.type_name, path) == ("gcs", "bucket/folder/store")


def test_a_secret_in_an_address_is_told_to_nobody(
    bucket: str, server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not in what is printed, not in errors, not in a file."""
    secret = "hush-hush"
    tail = f"?endpoint_override={server}&scheme=http&region=us-east-1"
    address = f"s3://nobody:{secret}@lab/store{tail}"
    wander_store(address, [300])
    store = Store(address)
    assert secret not in store.uri
    assert Store(store.address).frames == 300
    tracking = f"http://me:{secret}@127.0.0.1:9"
    words = ["--data", address, "--set", f"tracking={tracking}", "--out", str(tmp_path / "run")]
    assert exit_status(lambda: pretraining.main([*words, "--dry-run"])) == 0
    said = capsys.readouterr()
    assert "s3://***@lab/store" in said.out
    assert secret not in said.out + said.err
    wrong = address.replace("/store", "/nowhere")
    assert exit_status(lambda: pretraining.main(["--data", wrong, "--dry-run"])) == 2
    said = capsys.readouterr()
    assert "nowhere" in said.err
    assert secret not in said.out + said.err
    with open_run_folder(
        tmp_path / "run", {"data": address, "deep": [{"a": tracking}]}, resume=False
    ):
        write_json(tmp_path / "run" / "result.json", {"data": address, "scale": {"t": tracking}})
    for file in (tmp_path / "run").rglob("*"):
        assert secret not in file.read_text()
