package main

import (
	"context"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	relayclient "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	relayv2 "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	ma "github.com/multiformats/go-multiaddr"
)

// relayCommand runs a circuit relay (v2 hop) that is a DHT node and an AutoNAT server too.
func relayCommand(arguments []string) {
	o := parse("relay", arguments)
	if len(o.listen) == 1 && strings.Contains(o.listen[0], "/tcp/") {
		o.listen = append(o.listen, strings.Replace(o.listen[0], "/tcp/", "/udp/", 1)+"/quic-v1")
	}
	service := []relayv2.Option{relayv2.WithReservationAddressFilter(func(ma.Multiaddr) bool { return true })}
	if o.unlimited {
		service = append(service, relayv2.WithInfiniteLimits())
	}
	h := newHost(o, libp2p.EnableRelayService(service...), libp2p.ForceReachabilityPublic(),
		libp2p.EnableNATService(), libp2p.EnableAutoNATv2())
	defer h.Close()
	if !o.noDHT {
		joinDHT(h, o, true)
	}
	reportReady(h)
	waitForSignal()
}

// infosOf joins the addresses of each relay, so that the dialer may choose the transport.
func infosOf(relays []string) []peer.AddrInfo {
	addresses := make([]ma.Multiaddr, len(relays))
	for i, relay := range relays {
		addresses[i] = ma.StringCast(relay)
	}
	infos, err := peer.AddrInfosFromP2pAddrs(addresses...)
	must(err)
	return infos
}

func reserveSlots(h host.Host, relays []string) {
	for _, info := range infosOf(relays) {
		must(h.Connect(context.Background(), info))
		h.ConnManager().Protect(info.ID, "relay")
		slot, err := relayclient.Reserve(context.Background(), h, info)
		must(err)
		emit("reserved", fields{
			"relay": info.ID.String(), "expires": slot.Expiration.UTC().String(), "addresses": slot.Addrs,
			"limit_bytes": slot.LimitData, "limit_seconds": slot.LimitDuration.Seconds(), "voucher": slot.Voucher != nil,
		})
		advertiseRelayed(&info)
		go refreshSlot(h, &info, slot)
	}
}

func advertiseRelayed(relay *peer.AddrInfo) {
	var all []ma.Multiaddr
	if known := relayedAddresses.Load(); known != nil {
		all = append(all, *known...)
	}
	for _, address := range relay.Addrs {
		all = append(all, address.Encapsulate(ma.StringCast("/p2p/"+relay.ID.String()+"/p2p-circuit")))
	}
	relayedAddresses.Store(&all)
}

func refreshSlot(h host.Host, relay *peer.AddrInfo, slot *relayclient.Reservation) {
	for {
		time.Sleep(max(time.Until(slot.Expiration)-2*time.Minute, 10*time.Second))
		fresh, err := relayclient.Reserve(context.Background(), h, *relay)
		if err != nil {
			emit("reserve-failed", fields{"relay": relay.ID.String(), "message": err})
			continue
		}
		slot = fresh
	}
}
