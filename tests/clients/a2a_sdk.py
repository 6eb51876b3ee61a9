"""Reads events, one a line, and writes each as the official client in Python understands it."""

import json
import sys

from a2a.types import StreamResponse
from google.protobuf import json_format

with open(sys.argv[1], encoding="utf-8", newline="") as file:
    # As the client cuts a stream into lines: at U+2028 and its like as well.
    events = file.read().splitlines()
for event in events:
    try:
        # Refuses fields that the protocol does not have.
        understood = json_format.Parse(event, StreamResponse())
    except json_format.ParseError as error:
        print("refused", json.dumps(str(error)))
    else:
        print("ok", json.dumps(json_format.MessageToDict(understood)))
