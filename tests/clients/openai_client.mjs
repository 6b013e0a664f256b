// The official openai client for Node.

import assert from 'node:assert/strict'
import { File } from 'node:buffer'
import OpenAI, { toFile } from 'openai'

globalThis.File ??= File // Node 18 of Debian 12 has it only there

const base = process.env.HEADWAY_TEST_BASE_URL.replace(/\/$/, '')
const faults = process.env.HEADWAY_TEST_FAULTS_URL ?? ''
const control = process.env.HEADWAY_TEST_CONTROL_URL ?? ''
const alias = process.env.HEADWAY_TEST_ALIAS ?? ''
const model = process.env.HEADWAY_TEST_MODEL ?? 'llama-3.1-8b'
const client = new OpenAI({ baseURL: base + '/v1', apiKey: process.env.HEADWAY_TEST_KEY ?? 'none', maxRetries: 0, timeout: 60_000 })
const messages = [{ role: 'user', content: 'How far can you see?' }]
const chat = (more = {}, options) => client.chat.completions.create({ model, messages, max_tokens: 8, ...more }, options)
const heal = () => fetch(faults, { method: 'DELETE' })
const inject = async (fault) => {
  await heal()
  await fetch(faults, { method: 'POST', body: JSON.stringify({ times: 1, ...fault }) })
}
const all = async (stream) => { const out = []; for await (const e of stream) out.push(e); return out }

const kill = () => fetch(control + '/kill', { method: 'POST' })
const idle = async () => {
  for (let i = 0; i < 1000; i++) {
    if (await (await fetch(control + '/running')).text() === '0') return
    await new Promise((done) => setTimeout(done, 20))
  }
  assert.fail('a head still works')
}
const endless = (options) => chat({ stream: true, max_tokens: 100_000, ignore_eos: true }, options)

const checks = {
  async 'lists models'() {
    assert.ok((await all(await client.models.list())).some((m) => m.id === model))
  },
  async 'chats'() {
    const r = await chat()
    assert.ok(r.choices[0].message.content && r.usage.total_tokens > 0 && r.model === model)
  },
  async 'streams without usage'() {
    const chunks = await all(await chat({ stream: true }))
    assert.ok(chunks.every((c) => c.choices.length === 1 && c.usage == null))
    assert.ok(chunks.map((c) => c.choices[0].delta.content ?? '').join(''))
  },
  async 'streams with usage'() {
    const last = (await all(await chat({ stream: true, stream_options: { include_usage: true } }))).at(-1)
    assert.ok(last.usage.total_tokens > 0 && last.choices.length === 0)
  },
  async 'responds'() {
    const events = await all(await client.responses.create({ model, input: 'How far?', max_output_tokens: 8, stream: true }))
    assert.equal(events[0].type, 'response.created')
    assert.match(events.at(-1).type, /^response\.(completed|incomplete)$/)
  },
  async 'embeds'() {
    assert.equal((await client.embeddings.create({ model, input: ['one', 'two'] })).data.length, 2)
  },
  async 'sends a file'() {
    const file = await toFile(Buffer.alloc(100_000, 'a'), 'speech.wav')
    assert.ok((await client.audio.transcriptions.create({ model, file })).text)
  },
  async 'draws'() {
    assert.ok((await client.images.generate({ model, prompt: 'a red box' })).data[0].b64_json)
  },
  async 'names an unknown model'() {
    await assert.rejects(chat({ model: 'no-such-model' }), OpenAI.NotFoundError)
  },
  async 'waits after 429'() {
    await inject({ kind: 'status', status: 429, retry_after: '1' })
    await assert.rejects(chat(), OpenAI.RateLimitError)
    await inject({ kind: 'status', status: 429, retry_after: '1' })
    const began = performance.now()
    await chat({}, { maxRetries: 1 })
    assert.ok(performance.now() - began >= 990)
  },
  async 'names 503'() {
    await inject({ kind: 'status', status: 503 })
    await assert.rejects(chat(), OpenAI.InternalServerError)
  },
  async 'notices a stream that is cut'() {
    await inject({ kind: 'cut', after: 3 })
    await assert.rejects(async () => all(await chat({ stream: true })))
  },
  async 'leaves in the middle of a stream'() {
    const s = await chat({ stream: true, max_tokens: 2000, ignore_eos: true })
    for await (const _ of s) break
    assert.ok((await chat()).choices.length)
  },
  async 'calls tools'() {
    const tools = [{ type: 'function', function: { name: 'look', parameters: { type: 'object', properties: {} } } }]
    const r = await chat({ tools, tool_choice: 'required', max_tokens: undefined })
    assert.equal(r.choices[0].message.tool_calls[0].function.name, 'look')
  },
  async 'finds a model by its alias'() {
    assert.equal((await chat({ model: alias })).model, alias)
    assert.ok((await all(await chat({ model: alias, stream: true }))).every((c) => c.model === alias))
  },
  async 'is refused without a right key'() {
    const stranger = new OpenAI({ baseURL: base + '/v1', apiKey: 'wrong', maxRetries: 0 })
    await assert.rejects(stranger.chat.completions.create({ model, messages }), OpenAI.AuthenticationError)
  },
  async 'learns that a model has no head now'() {
    await assert.rejects(chat({ model: 'resting-model' }), (e) => e instanceof OpenAI.InternalServerError && e.status === 503 && e.headers.get('retry-after') >= 1)
  },
  async 'is interrupted'() {
    const stop = new AbortController()
    await assert.rejects(async () => {
      for await (const _ of await endless({ signal: stop.signal })) stop.abort()
      throw stop.signal.reason // this version ends the loop without an error
    })
    await idle()
  },
  async 'notices a head that dies'() {
    let n = 0
    await assert.rejects(async () => { for await (const _ of await endless()) if (++n === 5) await kill() })
    assert.ok(n >= 5 && (await chat()).choices.length)
  },
}
const ofHeadway = new Set(['finds a model by its alias', 'is refused without a right key', 'learns that a model has no head now', 'is interrupted', 'notices a head that dies'])
const breaking = new Set(['waits after 429', 'names 503', 'notices a stream that is cut'])

let failed = 0, skipped = 0
for (const [name, check] of Object.entries(checks)) {
  if (!faults && breaking.has(name) || !alias && ofHeadway.has(name)) {
    skipped++
    console.log(`skip  openai (Node): ${name}`)
    continue
  }
  try {
    await check()
    console.log(`ok    openai (Node): ${name}`)
  } catch (e) {
    failed++
    console.log(`FAIL  openai (Node): ${name}\n${e.stack}`)
  }
  if (faults) await heal()
}
console.log(`openai (Node): ${Object.keys(checks).length - failed - skipped} passed, ${failed} failed, ${skipped} skipped`)
process.exit(failed ? 1 : 0)
