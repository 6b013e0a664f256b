// Subscribes with the defaults of a Redis client for Node:
//   node subscribe.mjs CLIENT PORT CHANNEL
// It prints "ready" once it is subscribed, what it receives until that says
// "last", and "done" when everything else has been answered as well.
const [client, port, channel] = process.argv.slice(2);
const say = (...words) => process.stdout.write(words.join(" ") + "\n");
const fail = (error) => {
  say("error", error?.stack ?? error);
  process.exit(1);
};
setTimeout(() => fail("nothing came"), 120_000).unref();

async function ioredis(name) {
  const { default: Redis } = await import(name);
  const redis = new Redis(Number(port), "127.0.0.1");
  const other = new Redis(Number(port), "127.0.0.1", { connectionName: "other", readOnly: false });
  for (const c of [redis, other]) c.on("error", fail);
  const pong = await other.ping();
  const count = await redis.subscribe(channel);
  const both = await redis.psubscribe("audit:*");
  let matched = 0;
  redis.on("pmessage", (pattern, from, line) => {
    if (pattern === "audit:*" && from === channel && line) matched++;
  });
  redis.on("message", async (from, line) => {
    say("message", from, line);
    if (line !== "last") return;
    try {
      // These clients wait for ever for UNSUBSCRIBE without names while a
      // pattern is left, whatever the server. A message of the pattern follows that of the channel.
      while (matched < 2) await new Promise((next) => setImmediate(next));
      const alive = await redis.ping();
      await redis.unsubscribe(channel);
      const left = await redis.punsubscribe();
      const after = await redis.ping();
      await redis.reset();
      await redis.quit();
      await other.quit();
      say("done", pong, count, both, matched, String(Array.isArray(alive) ? alive[0] : alive).toLowerCase(), left, after);
    } catch (error) {
      fail(error);
    }
  });
  say("ready");
}

async function nodeRedis(name, options) {
  const { createClient } = await import(name);
  const redis = createClient({ url: `redis://127.0.0.1:${port}`, ...options });
  const other = redis.duplicate({ name: "other" });
  for (const c of [redis, other]) c.on("error", fail);
  await redis.connect();
  await other.connect();
  const pong = await other.ping();
  let matched = 0;
  await redis.pSubscribe("audit:*", (line, from) => {
    if (from === channel && line) matched++;
  });
  await redis.subscribe(channel, async (line, from) => {
    say("message", from, line);
    if (line !== "last") return;
    try {
      while (matched < 2) await new Promise((next) => setImmediate(next));
      const alive = await redis.ping();
      await redis.unsubscribe(channel);
      await redis.pUnsubscribe();
      const after = await redis.ping();
      await redis.quit();
      await other.quit();
      say("done", pong, 1, 2, matched, String(alive).toLowerCase(), 0, after);
    } catch (error) {
      fail(error);
    }
  });
  say("ready");
}

const clients = {
  "ioredis": () => ioredis("ioredis"),
  "ioredis5": () => ioredis("ioredis5"),
  "redis": () => nodeRedis("redis", {}),
  "redis RESP2": () => nodeRedis("redis", { RESP: 2 }),
  "redis RESP3": () => nodeRedis("redis", { RESP: 3 }),
  "redis4": () => nodeRedis("redis4", {}),
};
await clients[client]().catch(fail);
