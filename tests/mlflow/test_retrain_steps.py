"""The step of the example DAG that asks the gate: which answers end it, and which let it be tried again."""

import json
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

from app.kit.embedded.processes import clean_environment
from tests.spool.mlflow import ROOT, install_mlflow

ASK = """
import retrain_steps
for _ in range(3):
    try:
        told = retrain_steps.promotion({"model": "churn", "version": "4", "dag_run_id": "r"})["promotion"]
    except Exception as error:
        told = f"again: {error}"
    print(told)
"""
ANSWERS = [
    (409, {"code": "blocked", "detail": "Not passed: f1."}),
    (409, {"code": "lost_race", "detail": "Another promotion of churn is under way."}),
    (503, {"code": "registry_unavailable", "detail": "Nothing was changed."}),
]


def test_a_no_is_an_answer_and_a_lost_race_is_none() -> None:
    answers = iter(ANSWERS)

    class Gate(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            status, body = next(answers)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

    with HTTPServer(("127.0.0.1", 0), Gate) as gate:
        threading.Thread(target=gate.serve_forever, daemon=True).start()
        asked = subprocess.run(
            [install_mlflow(), "-c", ASK],
            cwd=ROOT / "examples/dags",
            env=clean_environment() | {"GATEWAY_URL": f"http://127.0.0.1:{gate.server_port}", "NO_PROXY": "127.0.0.1"},
            capture_output=True,
            text=True,
            check=True,
        )
        gate.shutdown()
    assert asked.stdout.splitlines() == [
        "Not passed: f1.",
        "again: Another promotion of churn is under way.",
        "again: HTTP Error 503: Service Unavailable",
    ]
