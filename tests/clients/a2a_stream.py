"""Has the official client stream a task: a2a_stream.py BINDING URL send|subscribe TASK TEXT.

Writes each event as the client understands it, a line each, and at last {"done": true}, or {"failed": why}. The binding
JSONRPC-0.3 is that of 0.3.
"""

import asyncio
import json
import sys
import uuid

from a2a.client import ClientConfig, ClientFactory
from a2a.types import AgentCapabilities, AgentCard, AgentInterface, SendMessageRequest, SubscribeToTaskRequest
from google.protobuf import json_format


def write(line):
    print(json.dumps(line), flush=True)


async def main(binding, url, method, task, text):
    if binding == "JSONRPC-0.3":
        interface = AgentInterface(url=f"{url}/rpc", protocol_binding="JSONRPC", protocol_version="0.3")
        capabilities = AgentCapabilities(streaming=True)
        client = ClientFactory().create(AgentCard(supported_interfaces=[interface], capabilities=capabilities))
    else:
        config = ClientConfig(supported_protocol_bindings=[binding])
        client = await ClientFactory(config).create_from_url(url)
    if method == "send":
        message = {"messageId": str(uuid.uuid4()), "role": "ROLE_USER", "parts": [{"text": text}], "taskId": task}
        events = client.send_message(json_format.ParseDict({"message": message}, SendMessageRequest()))
    else:
        events = client.subscribe(SubscribeToTaskRequest(id=task))
    async for event in events:
        write(json_format.MessageToDict(event))
    write({"done": True})


try:
    asyncio.run(main(*sys.argv[1:]))
except Exception as error:  # Whatever it is, the test is to hear of it.
    write({"failed": f"{type(error).__name__}: {error}"})
