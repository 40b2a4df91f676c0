package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"
)

// From the libp2p Kademlia DHT specification: replication, concurrency, expiry of provider records.
const (
	kadReplication = 20
	kadAlpha       = 3
	kadExpiry      = 48 * time.Hour
)

type providerRecord struct {
	addresses []ma.Multiaddr
	added     time.Time
}

// dht is a Kademlia node for networks of a few hundred peers: its table is a flat set, not buckets.
type dht struct {
	host      host.Host
	protocol  protocol.ID
	mu        sync.Mutex
	table     map[peer.ID]struct{}
	providers map[string]map[peer.ID]providerRecord
	records   map[string][]byte
}

func newDHT(h host.Host, prefix string, server bool) *dht {
	d := &dht{
		host: h, protocol: protocol.ID(prefix + "/kad/1.0.0"), table: map[peer.ID]struct{}{},
		providers: map[string]map[peer.ID]providerRecord{}, records: map[string][]byte{},
	}
	if server {
		h.SetStreamHandler(d.protocol, d.serve)
	}
	events, err := h.EventBus().Subscribe([]any{new(event.EvtPeerIdentificationCompleted), new(event.EvtPeerProtocolsUpdated)})
	must(err)
	for _, p := range h.Network().Peers() {
		d.consider(p)
	}
	go func() {
		for e := range events.Out() {
			switch e := e.(type) {
			case event.EvtPeerIdentificationCompleted:
				d.consider(e.Peer)
			case event.EvtPeerProtocolsUpdated:
				d.consider(e.Peer)
			}
		}
	}()
	return d
}

// consider adds a peer to the table if it serves this DHT.
func (d *dht) consider(p peer.ID) {
	if served, err := d.host.Peerstore().SupportsProtocols(p, d.protocol); err != nil || len(served) == 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.table[p] = struct{}{}
}

func (d *dht) size() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.table)
}

func distance(target [32]byte, p peer.ID) []byte {
	d := sha256.Sum256([]byte(p))
	for i := range d {
		d[i] ^= target[i]
	}
	return d[:]
}

func sortByDistance(key []byte, peers []peer.ID) {
	target := sha256.Sum256(key)
	slices.SortFunc(peers, func(a, b peer.ID) int { return bytes.Compare(distance(target, a), distance(target, b)) })
}

func (d *dht) closest(key []byte, except peer.ID) []kadPeer {
	d.mu.Lock()
	var peers []peer.ID
	for p := range d.table {
		if p != except {
			peers = append(peers, p)
		}
	}
	d.mu.Unlock()
	sortByDistance(key, peers)
	var known []kadPeer
	for _, p := range peers[:min(len(peers), kadReplication)] {
		known = append(known, d.describe(p))
	}
	return known
}

func (d *dht) describe(p peer.ID) kadPeer {
	connected := d.host.Network().Connectedness(p) == network.Connected
	return kadPeer{id: p, addresses: d.host.Peerstore().Addrs(p), connected: connected}
}

func (d *dht) serve(s network.Stream) {
	defer s.Close()
	reader := bufio.NewReader(s)
	for {
		s.SetReadDeadline(time.Now().Add(time.Minute))
		request, err := readMessage(reader)
		if err == io.EOF {
			return
		}
		if err != nil || request.kind > kadPing {
			s.Reset()
			return
		}
		answer := d.answer(request, s.Conn().RemotePeer())
		if answer == nil {
			continue
		}
		s.SetWriteDeadline(time.Now().Add(30 * time.Second))
		if err := writeMessage(s, answer); err != nil {
			s.Reset()
			return
		}
	}
}

// answer of a request; nil where the protocol has none.
func (d *dht) answer(request *kadMessage, from peer.ID) *kadMessage {
	answer := &kadMessage{kind: request.kind, key: request.key}
	switch request.kind {
	case kadFindNode:
		answer.closer = d.closest(request.key, from)
		d.addWanted(answer, from)
	case kadGetProviders:
		answer.closer = d.closest(request.key, from)
		answer.providers = d.providersOf(request.key)
	case kadAddProvider:
		d.addProviders(request, from)
		return nil
	case kadPut:
		answer.record = request.record
		d.mu.Lock()
		d.records[string(request.key)] = bytes.Clone(request.record)
		d.mu.Unlock()
	case kadGet:
		answer.closer = d.closest(request.key, from)
		d.mu.Lock()
		answer.record = d.records[string(request.key)]
		d.mu.Unlock()
	}
	return answer
}

// addWanted puts the very peer that was asked for first, even when it doesn't serve the DHT.
func (d *dht) addWanted(answer *kadMessage, from peer.ID) {
	wanted, err := peer.IDFromBytes(answer.key)
	listed := slices.ContainsFunc(answer.closer, func(p kadPeer) bool { return p.id == wanted })
	if err == nil && wanted != from && !listed && len(d.host.Peerstore().Addrs(wanted)) > 0 {
		answer.closer = append([]kadPeer{d.describe(wanted)}, answer.closer...)
	}
}

func (d *dht) providersOf(key []byte) (known []kadPeer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for p, record := range d.providers[string(key)] {
		if time.Since(record.added) < kadExpiry {
			known = append(known, kadPeer{id: p, addresses: record.addresses})
		}
	}
	return known
}

func (d *dht) addProviders(request *kadMessage, from peer.ID) {
	for _, p := range request.providers {
		// As in go-libp2p-kad-dht: a peer provides for itself only, and only where it can be reached.
		if p.id != from || len(p.addresses) == 0 {
			emit("dht-rejected", fields{"peer_id": p.id.String(), "from": from.String(), "addresses": len(p.addresses)})
			continue
		}
		d.mu.Lock()
		if d.providers[string(request.key)] == nil {
			d.providers[string(request.key)] = map[peer.ID]providerRecord{}
		}
		d.providers[string(request.key)][p.id] = providerRecord{p.addresses, time.Now()}
		d.mu.Unlock()
		d.host.Peerstore().AddAddrs(p.id, p.addresses, 30*time.Minute)
		emit("dht-added", fields{"peer_id": p.id.String(), "key": fmt.Sprintf("%x", request.key), "addresses": p.addresses})
	}
}
