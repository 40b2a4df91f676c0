// A js-libp2p peer for Kademlia: `node jspeer.mjs serve|provide|find [--prefix P] [--listen MA] [--bootstrap MA] [--key HEX]`.
// Prints JSON lines like the Go and the Rust peer: ready, provided, provider.

import './polyfill.mjs'
import { parseArgs } from 'node:util'
import { noise } from '@chainsafe/libp2p-noise'
import { yamux } from '@chainsafe/libp2p-yamux'
import { identify } from '@libp2p/identify'
import { kadDHT } from '@libp2p/kad-dht'
import { ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'
import { CID } from 'multiformats/cid'
import * as digest from 'multiformats/hashes/digest'
import * as raw from 'multiformats/codecs/raw'

const PAUSE = 250 // ms between tries at what is not there yet

const { positionals: [mode], values: options } = parseArgs({
  allowPositionals: true,
  options: {
    prefix: { type: 'string', default: '/ipfs' },
    listen: { type: 'string', default: '/ip4/127.0.0.1/tcp/0' },
    bootstrap: { type: 'string' },
    key: { type: 'string' } // a multihash
  }
})

const emit = (kind, fields) => console.log(JSON.stringify({ kind, ...fields }))
const pause = () => new Promise((resolve) => setTimeout(resolve, PAUSE))

const node = await createLibp2p({
  addresses: { listen: [options.listen] },
  transports: [tcp()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  services: {
    identify: identify(),
    ping: ping(),
    // Loopback addresses are dropped unless the mapper keeps them.
    dht: kadDHT({ protocol: `${options.prefix}/kad/1.0.0`, clientMode: mode !== 'serve', peerInfoMapper: (peer) => peer })
  }
})
emit('ready', { peer_id: node.peerId.toString(), addresses: node.getMultiaddrs().map(String) })
process.on('SIGTERM', () => process.exit(0))

if (options.bootstrap) {
  await node.dial(multiaddr(options.bootstrap))
  while (node.services.dht.routingTable.size === 0) await pause()
}
const cid = options.key && CID.createV1(raw.code, digest.decode(Buffer.from(options.key, 'hex')))

if (mode === 'provide') {
  for await (const event of node.services.dht.provide(cid)) {
    if (event.name === 'PEER_RESPONSE') emit('provided', { by: event.from.toString() })
  }
  emit('provided', {})
}

while (mode === 'find') {
  for await (const event of node.services.dht.findProviders(cid)) {
    if (event.name !== 'PROVIDER') continue
    for (const peer of event.providers) {
      emit('provider', { peer_id: peer.id.toString(), addresses: peer.multiaddrs.map(String) })
    }
  }
  await pause()
}
