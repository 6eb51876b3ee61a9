// Has the official client stream a task: a2a_stream.mjs BINDING URL send|subscribe TASK TEXT. Writes each event as the client
// understands it, a line each, and at last {"done": true}, or {"failed": why}. The binding JSONRPC-0.3 is that of 0.3.

import { AgentCard, SendMessageRequest, StreamResponse, SubscribeToTaskRequest } from "@a2a-js/sdk";
import { ClientFactory, ClientFactoryOptions, JsonRpcTransportFactory } from "@a2a-js/sdk/client";

const [binding, url, method, task, text] = process.argv.slice(2);
const write = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

try {
  let client;
  if (binding === "JSONRPC-0.3") {
    const transports = [new JsonRpcTransportFactory({ legacyCompat: { enabled: true } })];
    const card = AgentCard.fromJSON({
      supportedInterfaces: [{ url: `${url}/rpc`, protocolBinding: "JSONRPC", protocolVersion: "0.3" }],
      capabilities: { streaming: true },
    });
    client = await new ClientFactory({ transports }).createFromAgentCard(card);
  } else {
    const options = ClientFactoryOptions.createFrom(ClientFactoryOptions.default, { preferredTransports: [binding] });
    // The slash, or the last segment of the path would not be a part of the card's address.
    client = await new ClientFactory(options).createFromUrl(`${url}/`);
  }
  const message = { messageId: crypto.randomUUID(), role: "ROLE_USER", parts: [{ text }], taskId: task };
  const events =
    method === "send"
      ? client.sendMessageStream(SendMessageRequest.fromJSON({ message }))
      : client.resubscribeTask(SubscribeToTaskRequest.fromJSON({ id: task }));
  for await (const event of events) write(StreamResponse.toJSON(event));
  write({ done: true });
} catch (error) {
  write({ failed: `${error} ${error.cause ?? ""}` });
}
