"""A champion behind HTTP, as a user would start it."""

import http.client
import json
import os
import signal
import socket
import subprocess
import time
from contextlib import contextmanager

import pandas as pd

from _served import shell


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """`mlflow models serve` on a loopback port."""

    def __init__(self, root, log):
        self.port = free_port()
        environment = shell(MLFLOW_TRACKING_URI=f"sqlite:///{root}/experiments/mlflow/mlflow.db")
        command = "mlflow models serve -m models:/barcast-h5@champion --env-manager local"
        self.process = subprocess.Popen(
            [*command.split(), "-p", str(self.port)], env=environment, stdout=log, stderr=log, start_new_session=True
        )

    def wait(self, log_file):
        """Wait until it responds.

        Raises:
            AssertionError: with its log, if it ends or doesn't respond for two minutes.
        """
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if self.request("GET", "/ping")[0] == 200:
                    return
            except OSError:
                time.sleep(0.2)
        raise AssertionError(log_file.read_text())

    def request(self, method, path, body=None, kind="application/json"):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, {"Content-Type": kind})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def ask(self, table, **params):
        """Status, and the predictions as a table or the reason as text."""
        split = json.loads(table.to_json(orient="split", index=False, date_format="iso", double_precision=15))
        status, body = self.request("POST", "/invocations", json.dumps({"dataframe_split": split, "params": params}))
        content = json.loads(body)
        return status, pd.DataFrame(content["predictions"]) if status == 200 else content["message"]


@contextmanager
def serve(root, log_file):
    """Serve the repository's champion at five bars while the context lasts."""
    with log_file.open("w") as log:
        running = Server(root, log)
        try:
            running.wait(log_file)
            yield running
        finally:
            os.killpg(running.process.pid, signal.SIGTERM)
            running.process.wait()
