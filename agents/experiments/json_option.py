"""An option whose value is a JSON object, such as the arguments of an environment."""

import json
from typing import Annotated, Any

from tyro.constructors import PrimitiveConstructorSpec


def _read(values: list[str]) -> dict[str, Any]:
    """Reads the object from a command line."""
    found = json.loads(values[0])
    if not isinstance(found, dict):
        raise ValueError("it is no JSON object")
    return found


JsonObject = Annotated[
    dict[str, Any],
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="JSON",
        instance_from_str=_read,
        is_instance=lambda value: isinstance(value, dict),
        str_from_instance=lambda value: [json.dumps(value)],
    ),
]
"""A field of this type is given as one word: ``--env.kwargs '{"length": 16}'``."""
