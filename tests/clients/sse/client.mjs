// Opens a stream for each user with the npm package `eventsource`, and prints what the listeners get, a line of JSON for
// each event. Arguments: the hub's address, then the users.

import { EventSource } from "eventsource";

const [base, ...users] = process.argv.slice(1);
for (const user of users) {
  const source = new EventSource(`${base}users/${encodeURIComponent(user)}/streams/text`);
  for (const event of ["open", "text", "gap", "message"]) {
    source.addEventListener(event, ({ data = "", lastEventId: id = "" }) => {
      console.log(JSON.stringify({ user, event, data, id }));
    });
  }
}
// The package's timer for a reconnect keeps no process alive.
setInterval(() => {}, 1 << 30);
// Whoever started it has gone.
process.stdin.on("end", () => process.exit()).resume();
