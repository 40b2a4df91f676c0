package main

import (
	"bufio"
	"context"
	"errors"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
)

const kadTimeout = 10 * time.Second

// ask sends a request; the answer is nil for a request that has none.
func (d *dht) ask(ctx context.Context, p peer.ID, request *kadMessage) (*kadMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, kadTimeout)
	defer cancel()
	s, err := d.host.NewStream(network.WithAllowLimitedConn(ctx, "kad"), p, d.protocol)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	s.SetDeadline(time.Now().Add(kadTimeout))
	if err := writeMessage(s, request); err != nil {
		s.Reset()
		return nil, err
	}
	if request.kind == kadAddProvider {
		return nil, s.CloseWrite()
	}
	answer, err := readMessage(bufio.NewReader(s))
	if err != nil {
		s.Reset()
	}
	return answer, err
}

// lookup is one iterative query: who is known, who has answered, who failed.
type lookup struct {
	key                  []byte
	candidates           []peer.ID
	seen, done, unusable map[peer.ID]bool
}

// next candidates to ask: up to alpha of the closest that haven't been asked.
func (l *lookup) next() (batch []peer.ID) {
	sortByDistance(l.key, l.candidates)
	considered := 0
	for _, p := range l.candidates {
		if l.unusable[p] {
			continue
		}
		if considered++; considered > kadReplication || len(batch) == kadAlpha {
			break
		}
		if !l.done[p] {
			batch = append(batch, p)
		}
	}
	return batch
}

func (l *lookup) closest() (answered []peer.ID) {
	sortByDistance(l.key, l.candidates)
	for _, p := range l.candidates {
		if l.done[p] && !l.unusable[p] && len(answered) < kadReplication {
			answered = append(answered, p)
		}
	}
	return answered
}

// walk asks ever closer peers until enough says stop or nobody is left; it returns the closest that answered.
func (d *dht) walk(ctx context.Context, kind uint64, key []byte, enough func(*kadMessage) bool) []peer.ID {
	l := &lookup{key: key, seen: map[peer.ID]bool{d.host.ID(): true}, done: map[peer.ID]bool{}, unusable: map[peer.ID]bool{}}
	for _, p := range d.closest(key, "") {
		l.candidates, l.seen[p.id] = append(l.candidates, p.id), true
	}
	for stop := false; ctx.Err() == nil && !stop; {
		batch := l.next()
		if len(batch) == 0 {
			break
		}
		for p, answer := range d.askAll(ctx, batch, &kadMessage{kind: kind, key: key}) {
			l.done[p] = true
			if answer == nil {
				l.unusable[p] = true
				continue
			}
			for _, closer := range answer.closer {
				if !l.seen[closer.id] {
					l.candidates, l.seen[closer.id] = append(l.candidates, closer.id), true
				}
				d.host.Peerstore().AddAddrs(closer.id, closer.addresses, peerstore.TempAddrTTL)
			}
			stop = stop || enough(answer)
		}
	}
	return l.closest()
}

func (d *dht) askAll(ctx context.Context, peers []peer.ID, request *kadMessage) map[peer.ID]*kadMessage {
	type reply struct {
		from   peer.ID
		answer *kadMessage
	}
	replies := make(chan reply, len(peers))
	for _, p := range peers {
		go func() {
			answer, err := d.ask(ctx, p, request)
			if err != nil {
				answer = nil
			}
			replies <- reply{p, answer}
		}()
	}
	answers := map[peer.ID]*kadMessage{}
	for range peers {
		r := <-replies
		answers[r.from] = r.answer
	}
	return answers
}

// Provide and FindProvidersAsync make the node a content router for the library's routing discovery.
func (d *dht) Provide(ctx context.Context, c cid.Cid, _ bool) error {
	self := kadPeer{id: d.host.ID(), addresses: d.host.Addrs(), connected: true}
	record := &kadMessage{kind: kadAddProvider, key: c.Hash(), providers: []kadPeer{self}}
	failure, stored := errors.New("no DHT peers"), 0
	for _, p := range d.walk(ctx, kadFindNode, c.Hash(), func(*kadMessage) bool { return false }) {
		if _, err := d.ask(ctx, p, record); err != nil {
			failure = err
		} else {
			stored++
		}
	}
	if stored == 0 {
		return failure
	}
	emit("dht-provided", fields{"cid": c.String(), "peers": stored})
	return nil
}

func (d *dht) FindProvidersAsync(ctx context.Context, c cid.Cid, limit int) <-chan peer.AddrInfo {
	found := make(chan peer.AddrInfo, 64)
	go func() {
		defer close(found)
		seen := map[peer.ID]bool{}
		d.walk(ctx, kadGetProviders, c.Hash(), func(answer *kadMessage) bool {
			for _, p := range answer.providers {
				if seen[p.id] {
					continue
				}
				seen[p.id] = true
				select {
				case found <- peer.AddrInfo{ID: p.id, Addrs: p.addresses}:
				case <-ctx.Done():
					return true
				}
			}
			return limit > 0 && len(seen) >= limit
		})
	}()
	return found
}
