"""The server to compare with: a plain FastAPI endpoint that validates the same body and stores nothing.

    python -m benchmarks.plain PORT

It runs with the gateway's own uvicorn settings (app.cli.serve) and uvicorn's own protocol, so that only the work differs.
"""

import sys

import uvicorn
from fastapi import FastAPI

from app.intake.sources.alertmanager import Webhook
from app.intake.sources.native import NativeAlert

app = FastAPI()


@app.post("/api/v1/webhooks/alertmanager", status_code=202)
async def take(webhook: Webhook) -> dict[str, int]:
    """The usual first version: FastAPI reads and validates the body, and the answer is small."""
    return {"alerts": len(webhook.alerts)}


@app.post("/api/v1/alerts", status_code=202)
async def take_native(alerts: list[NativeAlert]) -> dict[str, int]:
    """The same for the gateway's own form."""
    return {"alerts": len(alerts)}


def main() -> None:
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=75,
    )


if __name__ == "__main__":
    main()
