"""Posts a comment on a GitHub pull request or a GitLab merge request, or updates the one that exists.

    python .ci/post.py FOLDER

FOLDER contains comment.md, whose first line identifies the comment, and optionally leaderboard.png. Repository and
token are read from the variables that the two services set: see `github` and `gitlab`.
"""

import base64
import json
import os
import sys
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from typing import Any

MARK = "<!-- barcast -->"
PAGE = 100


def call(method: str, url: str, headers: dict[str, str], body: Any = None) -> Any:
    """Send one request, JSON in both directions. `body` may also be bytes that `headers` describe."""
    if body is not None and not isinstance(body, bytes):
        body, headers = json.dumps(body).encode(), {**headers, "Content-Type": "application/json"}
    request = urllib.request.Request(url, body, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.loads(response.read() or b"null")
    except urllib.error.HTTPError as error:
        sys.exit(f"{method} {url}: {error.code} {error.reason}; check that the token may write comments and contents")


def find(url: str, headers: dict[str, str]) -> Any:
    """The id of the comment that starts with the mark, or None."""
    for number in range(1, 1000):
        comments = call("GET", f"{url}?per_page={PAGE}&page={number}", headers)
        for comment in comments:
            if comment["body"].startswith(MARK):
                return comment["id"]
        if len(comments) < PAGE:
            return None
    return None


def github(text: str, picture: Path) -> None:
    """Needs GITHUB_API_URL, GITHUB_REPOSITORY, GITHUB_SERVER_URL, GH_TOKEN and PR, the pull request's number."""
    repository, number = os.environ["GITHUB_REPOSITORY"], os.environ["PR"]
    root = f"{os.environ['GITHUB_API_URL']}/repos/{repository}"
    headers = {"Authorization": f"Bearer {os.environ['GH_TOKEN']}", "Accept": "application/vnd.github+json"}
    if picture.is_file():
        commit = keep_picture(root, headers, picture, f"barcast/pr-{number}")
        url = f"{os.environ['GITHUB_SERVER_URL']}/{repository}/blob/{commit}/{picture.name}?raw=true"
        text += f"\n![Leaderboard]({url})\n"
    comments = f"{root}/issues/{number}/comments"
    found = find(comments, headers)
    if found:
        call("PATCH", f"{root}/issues/comments/{found}", headers, {"body": text})
    else:
        call("POST", comments, headers, {"body": text})


def keep_picture(root: str, headers: dict[str, str], picture: Path, branch: str) -> str:
    """Commit only the picture, without parents, as `branch`: a comment can link only to files of the repository."""
    encoded = {"content": base64.b64encode(picture.read_bytes()).decode(), "encoding": "base64"}
    blob = call("POST", f"{root}/git/blobs", headers, encoded)["sha"]
    entry = {"path": picture.name, "mode": "100644", "type": "blob", "sha": blob}
    tree = call("POST", f"{root}/git/trees", headers, {"tree": [entry]})["sha"]
    content = {"message": "Leaderboard of a pull request", "tree": tree, "parents": []}
    commit: str = call("POST", f"{root}/git/commits", headers, content)["sha"]
    if call("GET", f"{root}/git/matching-refs/heads/{branch}", headers):
        call("PATCH", f"{root}/git/refs/heads/{branch}", headers, {"sha": commit, "force": True})
    else:
        call("POST", f"{root}/git/refs", headers, {"ref": f"refs/heads/{branch}", "sha": commit})
    return commit


def gitlab(text: str, picture: Path) -> None:
    """Needs CI_API_V4_URL, CI_PROJECT_ID, CI_MERGE_REQUEST_IID, and GITLAB_TOKEN, a token with the scope `api`."""
    root = f"{os.environ['CI_API_V4_URL']}/projects/{os.environ['CI_PROJECT_ID']}"
    headers = {"PRIVATE-TOKEN": os.environ["GITLAB_TOKEN"]}
    if picture.is_file():
        text += f"\n{upload(f'{root}/uploads', headers, picture)['markdown']}\n"
    notes = f"{root}/merge_requests/{os.environ['CI_MERGE_REQUEST_IID']}/notes"
    found = find(notes, headers)
    if found:
        call("PUT", f"{notes}/{found}", headers, {"body": text})
    else:
        call("POST", notes, headers, {"body": text})


def upload(url: str, headers: dict[str, str], file: Path) -> Any:
    """Upload a file as a form."""
    boundary = uuid.uuid4().hex
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{file.name}"\r\n'
    body = f"{head}Content-Type: image/png\r\n\r\n".encode() + file.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
    return call("POST", url, {**headers, "Content-Type": f"multipart/form-data; boundary={boundary}"}, body)


def main() -> None:
    """Post to the service whose variables are set."""
    if len(sys.argv) != 2:
        sys.exit("expected one argument, the folder that .ci/experiment wrote: python .ci/post.py FOLDER")
    comment, picture = Path(sys.argv[1]) / "comment.md", Path(sys.argv[1]) / "leaderboard.png"
    if not comment.is_file():
        sys.exit(f"{comment}: no such file; run .ci/experiment first")
    text = comment.read_text(encoding="utf-8")
    if not text.startswith(MARK):
        sys.exit(f"{comment}: expected {MARK} as its first line; run .ci/experiment again")
    if "GITHUB_REPOSITORY" in os.environ:
        github(text, picture)
    elif "CI_PROJECT_ID" in os.environ:
        gitlab(text, picture)
    else:
        sys.exit("no service to post to: expected the variables of GitHub Actions or of GitLab CI")


if __name__ == "__main__":
    main()
