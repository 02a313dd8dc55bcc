"""An encoder as ONNX gives what torch gives; what is pushed to a hub and pulled again is the same
model. The hub is a stand-in on loopback with the part of its interface that is used."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from worlds import MICE, embedder_of, wander

from finetune.export import main
from pretrain.errors import exit_status
from pretrain.train.checkpoint import load_encoder, save_encoder
from pretrain.train.embed_video import as_pose

COMMIT = "5" * 40


def poses(frames: int, seed: int) -> dict[str, torch.Tensor]:
    """Two mice; a point is missing for a while, and a whole animal."""
    position, confidence = wander(MICE, frames, seed=seed)
    position[10:20, 0, 2] = np.nan
    position[30:40, 1] = np.nan
    confidence[np.isnan(position).any(-1)] = 0
    arrays = {"position": position, "confidence": confidence}
    return {name: torch.from_numpy(array)[None] for name, array in arrays.items()}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    embedder = embedder_of(MICE, "tcn", as_pose(poses(200, 1)))
    save_encoder(out / "encoder", embedder, made_by={})
    return out


@pytest.mark.slow
def test_onnx_gives_what_torch_gives(run: Path, tmp_path: Path) -> None:
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package)
    onnxruntime = pytest.importorskip("onnxruntime")
    main([str(run), "--onnx", str(tmp_path / "mice.onnx")])
    session = onnxruntime.InferenceSession(tmp_path / "mice.onnx")
    embedder, _ = load_encoder(run)
    for frames in (90, 700):  # neither is what was traced
        arrays = poses(frames, seed=frames)
        with torch.no_grad():
            ours = embedder(as_pose(arrays), torch.ones(1, frames, dtype=torch.bool)).numpy()
        names = {"position": "position_BTMKX", "confidence": "confidence_BTMK"}
        (theirs,) = session.run(None, {names[k]: v.numpy() for k, v in arrays.items()})
        np.testing.assert_allclose(theirs, ours, atol=1e-4)
        assert ours.std() > 0.1
    said = json.loads(session.get_modelmeta().custom_metadata_map["ethoray"])
    assert said["schema"]["keypoints"] == list(MICE.keypoints)


class Hub(BaseHTTPRequestHandler):
    """Repositories as a dictionary; every file goes into the commit."""

    files: dict[str, dict[str, bytes]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/api/repos/create":
            about = json.loads(body)
            name = f"{about['organization']}/{about['name']}"
            self.files.setdefault(name, {})
            return self._json({"url": f"http://{self.headers['Host']}/{name}"})
        if self.path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        name, action = "/".join(self.path.split("/")[3:5]), self.path.split("/")[5]
        if action == "preupload":
            asked = json.loads(body)["files"]
            modes = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in asked
            ]
            return self._json({"files": modes})
        assert action == "commit", self.path
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                value = line["value"]
                self.files[name][value["path"]] = base64.b64decode(value["content"])
        url = f"http://{self.headers['Host']}/{name}/commit/{COMMIT}"
        return self._json({"commitUrl": url, "commitOid": COMMIT, "success": True})

    def do_GET(self) -> None:
        path = self.path.split("?")[0].strip("/")
        if path.startswith("api/models/"):
            name, kind = "/".join(path.split("/")[2:4]), [*path.split("/"), "revision"][4]
            if name not in self.files:
                return self._json({"error": "Repository not found"}, 404)
            if kind == "tree":
                return self._json(
                    [
                        {"type": "file", "path": p, "size": len(b), "oid": _hash(b)}
                        for p, b in self.files[name].items()
                    ]
                )
            siblings = [{"rfilename": name} for name in self.files[name]]
            return self._json({"id": name, "sha": COMMIT, "siblings": siblings, "private": False})
        owner, name, _, _, *inside = path.split("/")
        return self._send(self.files[f"{owner}/{name}"]["/".join(inside)])

    do_HEAD = do_GET

    def _json(self, value: object, status: int = 200) -> None:
        self._send(json.dumps(value).encode(), status)

    def _send(self, body: bytes, status: int = 200) -> None:
        self.send_response(status)
        headers = {"Content-Length": len(body), "ETag": f'"{_hash(body)}"', "X-Repo-Commit": COMMIT}
        headers |= {"X-Error-Code": "RepoNotFound"} if status == 404 else {}
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


def _hash(body: bytes) -> str:
    return hashlib.sha1(body).hexdigest()


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(Hub, "files", {}, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_what_is_pushed_is_what_is_pulled(run: Path, endpoint: str, tmp_path: Path) -> None:
    (run / "encoder" / "README.md").write_text("---\nlicense: mit\n---\n# Mice\n")
    (run / "encoder" / "state.pt").write_bytes(b"not for others")
    main([str(run), "--hub", "lab/mice", "--endpoint", endpoint])
    assert set(Hub.files["lab/mice"]) == {"encoder.json", "encoder.safetensors", "README.md"}
    main([str(tmp_path / "mice"), "--from-hub", "lab/mice", "--endpoint", endpoint])
    ours, theirs = load_encoder(run)[0], load_encoder(tmp_path / "mice")[0]
    for name, weights in ours.state_dict().items():
        assert torch.equal(weights, theirs.state_dict()[name])
    assert (tmp_path / "mice" / "README.md").read_text().endswith("# Mice\n")


def test_what_the_hub_refuses_is_told_in_a_sentence(
    endpoint: str, tmp_path: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*words: str) -> str:
        assert exit_status(lambda: main([*words, "--endpoint", endpoint])) in (1, 2)
        return capsys.readouterr().err

    assert "not found" in fails(str(tmp_path / "new"), "--from-hub", "lab/nothing").lower()
    assert "OWNER/NAME" in fails(str(run), "--hub", "mice")
    assert "no encoder or model" in fails(str(tmp_path), "--hub", "lab/mice")
    assert "already holds" in fails(str(run), "--from-hub", "lab/mice")
