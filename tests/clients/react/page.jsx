// A chat as a page has it that uses the AI SDK: /chat?api=/api/chat&id=c. Its messages so far come from the server, a run that
// is under way as well.

import { useChat } from "@ai-sdk/react";
import { DefaultChatTransport } from "ai";
import { createRoot } from "react-dom/client";

const query = new URLSearchParams(location.search);
const [api, id] = [query.get("api"), query.get("id")];
// For the test: what the last request was answered with.
const watched = async (...request) => {
  const response = await fetch(...request);
  document.documentElement.dataset.answered = response.status;
  return response;
};
const transport = new DefaultChatTransport({ api, fetch: watched });

const textOf = ({ parts }) => parts.map((part) => (part.type === "text" ? part.text : "")).join("");

function Chat({ stored }) {
  const chat = useChat({ id, messages: stored, resume: true, transport });
  // For the test.
  window.chat = chat;
  return (
    <main data-status={chat.status}>
      {chat.messages.map((message) => (
        <p key={message.id} className={message.role}>{textOf(message)}</p>
      ))}
      {chat.error && <p className="error">{chat.error.message}</p>}
    </main>
  );
}

const response = await fetch(`${api}/${id}`);
const stored = response.ok ? await response.json() : [];
createRoot(document.body).render(<Chat stored={stored} />);
