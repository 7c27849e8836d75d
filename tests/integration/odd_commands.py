"""Runs commands one after the other in this one process, each in an environment of its own: a start of Python costs more
than a command. Reads a list of {"arguments", "variables"} as JSON, and writes a list of [exit code, output]."""

import contextlib
import io
import json
import os
import sys
import traceback

from app.cli.main import main


def run(arguments: list[str], variables: dict[str, str]) -> tuple[int, str]:
    os.environ.clear()
    os.environ.update(variables)
    sys.argv = ["trigger-gateway", *arguments]
    output, code = io.StringIO(), 0
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            main()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        except BaseException:
            traceback.print_exc()
            code = 1
    return code, output.getvalue()


if __name__ == "__main__":
    print(json.dumps([run(case["arguments"], case["variables"]) for case in json.load(sys.stdin)]))
