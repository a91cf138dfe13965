"""A field that is a JSON object on the command line, such as the arguments of an environment."""

import json
from typing import Annotated, Any

from tyro.constructors import PrimitiveConstructorSpec


def read_json_object(values: list[str]) -> dict[str, Any]:
    """Reads the object from the words of a command line.

    Raises:
        ValueError: it is not JSON, or not an object.
    """
    found = json.loads(values[0])
    if not isinstance(found, dict):
        raise ValueError("it is not a JSON object")
    return found


JsonObject = Annotated[
    dict[str, Any],
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="JSON",
        instance_from_str=read_json_object,
        is_instance=lambda value: isinstance(value, dict),
        str_from_instance=lambda value: [json.dumps(value)],
    ),
]
"""A field of this type takes one word: ``--env.kwargs '{"length": 16}'``."""
