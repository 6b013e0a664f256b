// Listens as a page in a browser does: node listen.mjs EventSource|WebSocket URL
// TYPES. Each event is a line: its type, a space and its data.
import { EventSource } from 'eventsource'
import { WebSocket } from 'undici'

const [kind, url, types] = process.argv.slice(2)
const say = (type, data) => process.stdout.write(`${type} ${data}\n`)

if (kind === 'EventSource') {
  const events = new EventSource(`${url}/api/v1/events?types=${types}`)
  for (const type of ['snapshot', 'lost', 'bye', 'head.registered', 'head.changed', 'head.expired', 'head.recovered',
    'head.held', 'head.ejected', 'head.reinstated', 'head.contested', 'head.removed', 'head.routable', 'head.unroutable']) {
    events.addEventListener(type, e => say(type, e.data))
  }
  events.addEventListener('open', () => say('open', events.readyState))
} else {
  const socket = new WebSocket(`${url.replace('http', 'ws')}/api/v1/ws`)
  socket.addEventListener('open', () => socket.send(JSON.stringify({ id: 1, type: 'subscribe', data: { types: types.split(',') } })))
  socket.addEventListener('message', e => {
    const message = JSON.parse(e.data)
    say(message.data?.type ?? message.type, JSON.stringify(message.data))
  })
  socket.addEventListener('close', e => say('close', e.code))
}

// A page is there while it waits to connect again; Node would end.
setInterval(() => {}, 1 << 30)
