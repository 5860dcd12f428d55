"""Python's huggingface_hub reads what forebay downloaded, and forebay what Python downloaded, with no request more.

A server on loopback imitates the hub: `resolve` with a redirect for large files, and the API that Python asks.

Run: python tests/interop/hub.py path/to/forebay
"""

import hashlib
import http.server
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading

try:
    import huggingface_hub  # noqa: F401, only to know whether it is there
    import numpy
    from PIL import Image
    from safetensors.numpy import load_file, save_file
except ImportError as error:
    print(f"SKIPPED: hub.py needs huggingface_hub, numpy, Pillow and safetensors: {error}", file=sys.stderr)
    sys.exit(77)

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {}
REQUESTS = []


class Hub(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def answer(self, status, headers, body=b""):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def do_GET(self):
        REQUESTS.append((self.command, self.path))
        parts = self.path.split("?")[0].strip("/").split("/")
        if parts[0] == "storage":
            body = FILES[parts[1]]
            start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
            status = 206 if start else 200
            headers = {"Content-Length": len(body) - start}
            if start:
                headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
            return self.answer(status, headers, body[start:])
        if parts[:2] == ["api", "models"]:
            siblings = [{"rfilename": name} for name in FILES]
            body = json.dumps({"id": "o/n", "sha": COMMIT, "siblings": siblings}).encode()
            return self.answer(200, {"Content-Length": len(body), "Content-Type": "application/json"}, body)
        if parts[:3] == ["o", "n", "resolve"] and parts[3] in ("main", COMMIT):
            body = FILES.get(parts[4])
            if body is None:
                return self.answer(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT, "Content-Length": 0})
            headers = {"X-Repo-Commit": COMMIT}
            if parts[4].endswith(".json"):
                git = hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()
                return self.answer(200, headers | {"ETag": f'"{git}"', "Content-Length": len(body)}, body)
            # Another origin, as the hub's storage is.
            place = f"http://localhost:{self.server.server_address[1]}/storage/{parts[4]}"
            digest = hashlib.sha256(body).hexdigest()
            headers |= {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": len(body)}
            return self.answer(302, headers | {"Location": place, "Content-Length": 0})
        self.answer(404, {"X-Error-Code": "RepoNotFound", "Content-Length": 0})

    do_HEAD = do_GET


def main(forebay):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        noise = numpy.random.default_rng(0)
        for index in range(16):
            path = folder / f"in/{'ab'[index % 2]}/{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise.integers(0, 256, (16, 16, 3), numpy.uint8)).save(path)

        def environment(home, offline):
            keep = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
            keep = {name: value for name, value in keep.items() if not name.startswith("HF_")}
            address = f"http://127.0.0.1:{server.server_address[1]}"
            more = {"HF_HOME": str(folder / home), "HF_ENDPOINT": address, "HF_HUB_DISABLE_XET": "1"}
            return keep | more | ({"HF_HUB_OFFLINE": "1"} if offline else {})

        def train(out, *options, home="home", offline=False):
            command = [forebay, "train", "in", "--out", out, "--epochs", "1", "--split", "none", *options]
            done = subprocess.run(command, cwd=folder, env=environment(home, offline), capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            return done.stderr

        def python(home, offline, name):
            code = f"import huggingface_hub as h; print(h.hf_hub_download('o/n', {name!r}))"
            done = subprocess.run(
                [sys.executable, "-c", code], env=environment(home, offline), capture_output=True, text=True
            )
            assert done.returncode == 0, done.stderr
            return pathlib.Path(done.stdout.strip())

        train("first", "--size", "16")
        save_file(load_file(folder / "first/model.safetensors"), folder / "plain.safetensors")
        FILES["model.safetensors"] = (folder / "plain.safetensors").read_bytes()
        FILES["config.json"] = json.dumps({"architecture": "small", "pretrained_cfg": {
            "input_size": [3, 16, 16], "crop_pct": 1.0, "interpolation": "bilinear",
            "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}}).encode()

        # Forebay downloads; Python reads it offline, and online without fetching a byte.
        train("a", "--weights", "hf:o/n", home="ours")
        for name in FILES:
            assert python("ours", True, name).read_bytes() == FILES[name], name
        REQUESTS.clear()
        python("ours", False, "model.safetensors")
        gets = [request for request in REQUESTS if request[0] == "GET" and "api" not in request[1]]
        assert not gets, gets
        print("huggingface_hub reads forebay's cache, offline and online")

        # Python downloads; forebay reads it without a request, online and offline.
        for name in FILES:
            assert python("theirs", False, name).read_bytes() == FILES[name], name
        REQUESTS.clear()
        train("b", "--weights", "hf:o/n", home="theirs")
        train("c", "--weights", "hf:o/n", home="theirs", offline=True)
        assert not REQUESTS, REQUESTS
        print("forebay reads huggingface_hub's cache, without a request")

        # Both have the same files at the same places.
        def layout(home):
            root = folder / home / "hub/models--o--n"
            return sorted(
                (str(path.relative_to(root)), os.readlink(path) if path.is_symlink() else path.stat().st_size)
                for path in root.rglob("*") if not path.is_dir() and path.name != "preprocessor_config.json"
            )

        ours, theirs = layout("ours"), layout("theirs")
        extra = [entry for entry in theirs if entry not in ours]
        missing = [entry for entry in ours if entry not in theirs]
        print(f"{len(ours)} entries by forebay, {len(theirs)} by Python; only by Python: {extra}; only here: {missing}")
        assert not missing, missing


if __name__ == "__main__":
    main(str(pathlib.Path(sys.argv[1]).resolve()) if len(sys.argv) > 1 else "forebay")
