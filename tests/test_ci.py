"""The comment on a pull request, against small servers that respond like GitHub and GitLab."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
TEXT = "<!-- barcast -->\n### `main` → `workspace`\n"
PNG = b"\x89PNG picture"


class Service:
    """A code host: its `comments`, and the `requests` that it got."""

    def __init__(self, comments):
        self.comments = comments
        self.requests = []
        self.branches = []
        self.allowed = True
        service = self

        class Handler(BaseHTTPRequestHandler):
            def respond(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, content = service.respond(self.command, self.path, dict(self.headers), body)
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(content).encode())

            do_GET = do_POST = do_PATCH = do_PUT = respond  # noqa: N815

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def respond(self, method, path, headers, body):
        self.requests.append((method, path, headers, body))
        if not self.allowed:
            return 403, {}
        parts = urlsplit(path)
        if parts.path.endswith(("/comments", "/notes")):
            return self.listed(method, parse_qs(parts.query), body)
        if re.search(r"/(comments|notes)/\d+$", parts.path):
            number = int(parts.path.rsplit("/", 1)[1])
            next(c for c in self.comments if c["id"] == number)["body"] = json.loads(body)["body"]
            return 200, {}
        if "/matching-refs/" in parts.path:
            return 200, [name for name in self.branches if parts.path.endswith(name)]
        if parts.path.endswith("/git/refs"):
            self.branches.append(json.loads(body)["ref"].removeprefix("refs/heads/"))
        if parts.path.endswith("/uploads"):
            return 201, {"markdown": "![leaderboard](/uploads/1/leaderboard.png)"}
        return 201, {"sha": f"sha-of-{parts.path.rsplit('/', 1)[1]}"}

    def listed(self, method, query, body):
        if method == "POST":
            self.comments.append({"id": len(self.comments) + 1, "body": json.loads(body)["body"]})
            return 201, {}
        page, size = int(query["page"][0]), int(query["per_page"][0])
        return 200, self.comments[(page - 1) * size : page * size]


@pytest.fixture
def service():
    found = Service([{"id": number, "body": f"a person's comment {number}"} for number in range(1, 131)])
    yield found
    found.server.shutdown()
    found.server.server_close()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "comment.md").write_text(TEXT)
    (tmp_path / "leaderboard.png").write_bytes(PNG)
    return tmp_path


def github(url):
    return {
        "GITHUB_API_URL": url,
        "GITHUB_REPOSITORY": "me/bars",
        "GITHUB_SERVER_URL": "https://host",
        "GH_TOKEN": "secret",
        "PR": "12",
    }


def gitlab(url):
    return {"CI_API_V4_URL": url, "CI_PROJECT_ID": "7", "CI_MERGE_REQUEST_IID": "3", "GITLAB_TOKEN": "secret"}


def post(folder, variables):
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("GITHUB_", "GITLAB_", "CI_", "GH_"))}
    command = [sys.executable, str(REPOSITORY / ".ci/post.py"), str(folder)]
    return subprocess.run(command, env={**kept, **variables}, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("host", [github, gitlab])
def test_one_comment_is_posted_and_then_updated(service, folder, host):
    assert post(folder, host(service.url)).returncode == 0
    assert len(service.comments) == 131
    assert service.comments[-1]["body"].startswith(TEXT)
    (folder / "comment.md").write_text(TEXT + "later")
    assert post(folder, host(service.url)).returncode == 0
    assert len(service.comments) == 131, "found on the second page of comments"
    assert "later" in service.comments[-1]["body"]
    assert all("person" in comment["body"] for comment in service.comments[:-1])


def test_github_keeps_the_picture_in_a_branch_and_links_its_commit(service, folder):
    post(folder, github(service.url))
    assert service.comments[-1]["body"].endswith(
        "\n![Leaderboard](https://host/me/bars/blob/sha-of-commits/leaderboard.png?raw=true)\n"
    )
    sent = {path.rsplit("/", 1)[1]: json.loads(body) for method, path, _, body in service.requests if method == "POST"}
    assert base64.b64decode(sent["blobs"]["content"]) == PNG
    assert sent["commits"]["parents"] == []
    assert service.branches == ["barcast/pr-12"]
    post(folder, github(service.url))
    assert service.branches == ["barcast/pr-12"], "moved, not created again"
    assert any(
        method == "PATCH" and path.endswith("/git/refs/heads/barcast/pr-12") for method, path, _, _ in service.requests
    )
    assert {headers["Authorization"] for _, _, headers, _ in service.requests} == {"Bearer secret"}


def test_gitlab_uploads_the_picture(service, folder):
    post(folder, gitlab(service.url))
    assert service.comments[-1]["body"].endswith("\n![leaderboard](/uploads/1/leaderboard.png)\n")
    body = next(body for _, path, _, body in service.requests if path.endswith("/uploads"))
    assert PNG in body
    assert b'filename="leaderboard.png"' in body


def test_without_a_picture_the_comment_is_text_only(service, folder):
    (folder / "leaderboard.png").unlink()
    assert post(folder, github(service.url)).returncode == 0
    assert service.comments[-1]["body"] == TEXT
    assert service.branches == []


def test_errors_name_the_remedy(service, folder):
    service.allowed = False
    refused = post(folder, github(service.url))
    assert refused.returncode == 1
    assert "403 Forbidden; check that the token may write comments and contents" in refused.stderr
    assert "secret" not in refused.stderr
    nowhere = post(folder, {})
    assert "no service to post to: expected the variables of GitHub Actions or of GitLab CI" in nowhere.stderr
    (folder / "comment.md").write_text("something else")
    assert "expected <!-- barcast --> as its first line" in post(folder, github(service.url)).stderr


def test_a_missing_comment_is_one_line(tmp_path):
    missing = post(tmp_path, {})
    assert (missing.returncode, missing.stdout) == (1, "")
    assert missing.stderr == f"{tmp_path / 'comment.md'}: no such file; run .ci/experiment first\n"
    command = [sys.executable, str(REPOSITORY / ".ci/post.py")]
    bare = subprocess.run(command, capture_output=True, text=True, check=False)
    assert bare.returncode == 1
    assert bare.stderr.startswith("expected one argument, the folder that .ci/experiment wrote")


def test_the_picture_names_what_it_lacks(tmp_path):
    command = [sys.executable, str(REPOSITORY / ".ci/picture.py"), "none.html", "none.png"]
    bare = subprocess.run(command, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert bare.returncode == 1
    assert "none of chromium, chromium-browser, google-chrome is on the PATH" in bare.stderr


def script(root, **tools):
    """Run `.ci/experiment` in a repository of its own, in which each command is a line of shell."""
    (root / ".ci").mkdir()
    shutil.copy(REPOSITORY / ".ci/experiment", root / ".ci/experiment")
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    (root / "dvc.lock").write_text("schema: '2.0'\n")
    subprocess.run(["git", "add", "dvc.lock"], cwd=root, check=True)
    (root / "tools").mkdir()
    for name, line in tools.items():
        (root / "tools" / name).write_text(f"#!/bin/sh\necho {name} $* >> called\n{line}\n")
        (root / "tools" / name).chmod(0o755)
    path = f"{root / 'tools'}{os.pathsep}{os.environ['PATH']}"
    command = [str(root / ".ci/experiment"), "origin/main", "out"]
    done = subprocess.run(command, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False)
    return done, (root / "called").read_text().splitlines()


def test_the_script_pulls_only_if_there_is_a_remote(tmp_path):
    remote = 'test "$1" != remote || echo "there  s3://bucket"'
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    _, called = script(tmp_path / "a", dvc=remote, barcast="echo '### a'", python="exit 1")
    assert [line for line in called if line.startswith("dvc")] == [
        "dvc remote list",
        "dvc pull --quiet --run-cache --allow-missing",
        "dvc repro",
    ]
    done, called = script(tmp_path / "b", dvc="", barcast="echo '### a'", python="exit 1")
    assert [line for line in called if line.startswith("dvc")] == ["dvc remote list", "dvc repro"]
    assert done.stdout == "<!-- barcast -->\n### a\n"
    assert (tmp_path / "b/out/comment.md").read_text() == done.stdout
    assert [file.name for file in (tmp_path / "b/out").iterdir()] == ["comment.md"]


def test_the_comment_tells_if_the_base_has_no_results(tmp_path):
    done, _ = script(tmp_path, dvc="", barcast="echo 'error: main: not in the cache' >&2; exit 1", python="exit 1")
    assert done.returncode == 0
    assert done.stdout == "<!-- barcast -->\n### No comparison with `origin/main`\n\nmain: not in the cache\n"


def test_the_comment_tells_of_a_stale_lock_and_a_failed_pipeline_fails(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    done, _ = script(tmp_path / "a", dvc="echo changed >> dvc.lock", barcast="echo '### a'", python="exit 1")
    assert "> **dvc.lock is out of date.**" in done.stdout
    done, called = script(tmp_path / "b", dvc='test "$1" != repro', barcast="", python="")
    assert done.returncode != 0
    assert not any(line.startswith("barcast") for line in called)


@pytest.mark.parametrize("name", [".github/workflows/experiment.yml", ".gitlab-ci.yml"])
def test_workflows_call_scripts_that_exist(name):
    text = (REPOSITORY / name).read_text()
    assert yaml.safe_load(text)
    scripts = set(re.findall(r"\.ci/[\w.]+", text))
    assert {".ci/experiment", ".ci/post.py"} <= scripts
    for name in scripts:
        assert (REPOSITORY / name).is_file()
    assert os.access(REPOSITORY / ".ci/experiment", os.X_OK)
