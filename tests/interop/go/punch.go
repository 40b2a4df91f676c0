package main

import (
	"context"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/p2p/protocol/holepunch"
	"github.com/libp2p/go-libp2p/p2p/protocol/identify"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// punchTracer tells every step of the library: its attempts, the round trip, addresses and outcome.
type punchTracer struct{}

func (punchTracer) Trace(e *holepunch.Event) {
	emit("dcutr", fields{"step": e.Type, "peer_id": e.Remote.String(), "detail": e.Evt})
}

// meetRelays connects before the provider is dialled: what the relays observe is what hole punching offers.
// The library answers DCUtR only some time after that, and whoever asks too early never asks again.
func meetRelays(h host.Host, relays []string, patience time.Duration) {
	if len(relays) == 0 {
		return
	}
	for _, relay := range infosOf(relays) {
		must(h.Connect(context.Background(), relay))
		h.ConnManager().Protect(relay.ID, "relay")
	}
	began := time.Now()
	for !slices.Contains(h.Mux().Protocols(), holepunch.Protocol) && time.Since(began) < patience {
		time.Sleep(5 * time.Millisecond)
	}
	emit("met-relays", fields{"answers_dcutr": slices.Contains(h.Mux().Protocols(), holepunch.Protocol)})
}

// punchFromLoopback offers loopback addresses for hole punching: the library's own service offers public ones only.
func punchFromLoopback(h host.Host) {
	identified := h.(interface{ IDService() identify.IDService }).IDService()
	_, err := holepunch.NewService(h, identified, func() []ma.Multiaddr {
		var loopback []ma.Multiaddr
		addresses, err := h.Network().InterfaceListenAddresses()
		must(err)
		for _, address := range addresses {
			if !isRelayed(address) && manet.IsIPLoopback(address) {
				loopback = append(loopback, address)
			}
		}
		return loopback
	}, holepunch.WithTracer(punchTracer{}))
	must(err)
}
