// Has an official client run an agent: agui_run.mjs PACKAGE URL THREAD RUN TEXT. Writes each event as the client understands
// it, a line each, and at last {"done": ...} with what it has made of them, or {"failed": why}.

const [url, threadId, runId, text] = process.argv.slice(3);
const { HttpAgent } = await import(process.argv[2]);

// What clients grumble about belongs to the errors.
for (const level of ["log", "info", "debug", "warn"]) console[level] = console.error;
const write = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

const agent = new HttpAgent({ url, threadId, initialMessages: [{ id: "asked", role: "user", content: text }] });
try {
  await agent.runAgent({ runId }, { onEvent: ({ event }) => write(event) });
  write({ done: { messages: agent.messages, state: agent.state } });
} catch (error) {
  write({ failed: String(error) });
}
