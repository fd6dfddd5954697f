"""playbooks/schema.json is what the reader's own lists say. `python -m tests.playbooks.test_schema` renews it."""

from __future__ import annotations

from pathlib import Path

import orjson
from ruamel.yaml import YAML

from playbooks import reading
from playbooks.schema import schema

FILE = Path(__file__).parents[2] / "playbooks" / "schema.json"
LIBRARY = sorted((FILE.parent / "library").glob("*.yaml"))


def test_the_file_is_what_the_lists_say() -> None:
    assert orjson.loads(FILE.read_bytes()) == schema()


def test_it_knows_every_key_that_the_reader_knows() -> None:
    made = schema()["properties"]
    assert set(made) == set(reading.KEYS)
    triggers = set().union(*(one["properties"] for one in made["on"]["items"]["anyOf"]))
    assert triggers == set(reading.TRIGGER_KEYS)
    steps = set().union(*(one["properties"] for one in schema()["$defs"].values() if "properties" in one))
    assert steps == set(reading.STEP_KEYS)
    assert set(made["limits"]["properties"]) == set(reading.LIMIT_KEYS)
    assert set(made["windows"]["items"]["properties"]) == set(reading.WINDOW_KEYS)


def test_the_library_fits_it() -> None:
    import jsonschema

    for file in LIBRARY:
        jsonschema.validate(YAML(typ="safe").load(file.read_text()), schema())


if __name__ == "__main__":
    FILE.write_bytes(orjson.dumps(schema(), option=orjson.OPT_INDENT_2) + b"\n")
