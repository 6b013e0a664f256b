// Listens over Server-Sent Events and WebSocket and speaks over the message
// queue, so that those panels have something to draw. Usage:
// node clients.mjs BASE_URL QUEUE_HOST:PORT; it ends when it is killed.
import { connect } from "node:net";
import WebSocket from "ws";

const [base, queue] = process.argv.slice(2);
for (let i = 0; i < 5; i++) {
  fetch(base + "/api/v1/events").then(async (answer) => { for await (const _ of answer.body); });
}
// One that comes and goes: how long streams last is drawn as well.
for (const wait of [5000, 13000]) {
  setInterval(() => fetch(base + "/api/v1/events", { signal: AbortSignal.timeout(wait * 0.8) })
    .then(async (answer) => { for await (const _ of answer.body); }).catch(() => {}), wait);
}
for (let i = 0; i < 3; i++) {
  const ws = new WebSocket(base.replace(/^http/, "ws") + "/api/v1/ws");
  ws.on("open", () => setInterval(() => ws.send(JSON.stringify({ id: 1, type: "decide", data: { model_type: "llama-3.1-8b" } })), 2000));
  ws.on("message", (text) => {
    const { id, data } = JSON.parse(text);
    if (id === 1 && data?.decision_id) ws.send(JSON.stringify({ id: 2, type: "outcome", data: { decision_id: data.decision_id, result: "ok" } }));
  });
}

// The few words of NATS' protocol that it takes: ask for decisions, and report how
// they ended; one report in twenty names a decision that does not exist.
const [host, port] = queue.split(":");
const nats = connect(Number(port), host);
const say = (subject, body, reply = "") => nats.write(`PUB ${subject} ${reply} ${Buffer.byteLength(body)}\r\n${body}\r\n`);
let heard = "", asked = 0;
nats.write('CONNECT {"verbose":false,"pedantic":false,"name":"screenshots"}\r\nSUB _INBOX.pictures.> 1\r\n');
nats.on("data", (piece) => {
  heard += piece;
  if (/(^|\n)PING\r\n/.test(heard)) { nats.write("PONG\r\n"); heard = heard.replace("PING\r\n", ""); }
  for (const [, id] of heard.matchAll(/"decision_id":"(dec_[0-9a-f]+)"/g)) {
    setTimeout(() => say("headway.v1.decisions.outcome", JSON.stringify({ decision_id: id, result: "ok" })), 300);
  }
  heard = heard.slice(heard.lastIndexOf("\n") + 1);
});
setInterval(() => {
  say("headway.v1.decisions.request", '{"model_type":"qwen2.5-32b"}', "_INBOX.pictures.1");
  if (++asked % 20 === 0) say("headway.v1.decisions.outcome", '{"decision_id":"dec_none","result":"ok"}');
}, 250);
