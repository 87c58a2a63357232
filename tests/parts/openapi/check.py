"""Asks an API whether it is as its OpenAPI document says, with schemathesis.

    COUNTERSIGN_TOKEN=… python3 tests/parts/openapi/check.py URL EXAMPLES

URL is of the API, which serves its document at /v1/openapi.json; the token is a management token of an administrator;
EXAMPLES is how many requests are made up for each operation, beside those
that its description leads to. The same requests are made each time. Ends with 0 where nothing was found; otherwise
what was found is on stdout.
"""

import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent / "packages"))

import schemathesis.cli  # noqa: E402

# What only a sequence of requests could show, and what no description can say: that a tenant has to be known.
NOT_ASKED = "positive_data_acceptance,use_after_free,ensure_resource_availability,object_level_authorization"


def checked(url, token, examples, *more):
    arguments = [
        "run", f"{url}/v1/openapi.json", "--url", url, "--header", f"Authorization: Bearer {token}",
        "--phases", "coverage,fuzzing", "--max-examples", str(examples), "--generation-deterministic",
        "--request-timeout", "20", "--no-color", "--no-shrink", "--warnings", "off", *more,
    ]
    try:
        schemathesis.cli.schemathesis(arguments)
    except SystemExit as ended:
        return ended.code in (0, None)
    return True


def main():
    url, examples, token = sys.argv[1], int(sys.argv[2]), os.environ["COUNTERSIGN_TOKEN"]
    well = checked(url, token, examples, "--checks", "all", "--exclude-checks", NOT_ASKED)
    # Lists can be asked for in every way that is described.
    lists = [f"--include-path=/v1/{name}" for name in ("agents", "grants", "ledgers", "sidecars", "tasks")]
    read = checked(
        url, token, examples, "--checks", "positive_data_acceptance", "--mode", "positive", "--exclude-method", "POST",
        *lists,
    )
    sys.exit(0 if well and read else 1)


main()
