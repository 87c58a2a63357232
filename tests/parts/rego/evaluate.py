"""Another engine of Rego, rego-cpp, as an oracle: `evaluate.py RULE MODULE...` answers each line of JSON on its standard input,
which is an input document, with a line of JSON: what RULE (data.…) gives with it, or null where it is undefined or fails."""

import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent / "packages"))

from regopy import Interpreter  # noqa: E402

rule, *modules = sys.argv[1:]
engine = Interpreter()
for path in modules:
    engine.add_module(path, pathlib.Path(path).read_text(encoding="utf-8"))
for line in sys.stdin:
    engine.set_input(json.loads(line))
    output = engine.query(rule)
    answer = json.loads(str(output)).get("expressions", [None])[0] if output.ok() else None
    print(json.dumps(answer), flush=True)
