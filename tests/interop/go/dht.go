package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	drouting "github.com/libp2p/go-libp2p/p2p/discovery/routing"
	mh "github.com/multiformats/go-multihash"
)

func joinDHT(h host.Host, o *options, server bool) *dht {
	d := newDHT(h, o.prefix, server)
	for _, address := range o.bootstrap {
		connect(h, address, o.timeout)
	}
	if len(o.bootstrap) > 0 {
		for deadline := time.Now().Add(5 * time.Second); d.size() == 0 && time.Now().Before(deadline); {
			time.Sleep(20 * time.Millisecond)
		}
		emit("dht-joined", fields{"peers": d.size()})
	}
	return d
}

// cidOf a name, as the library's routing discovery derives it.
func cidOf(name string) cid.Cid {
	digest, err := mh.Sum([]byte(name), mh.SHA2_256, -1)
	must(err)
	return cid.NewCidV1(cid.Raw, digest)
}

func provideName(h host.Host, d *dht, name string) {
	lifetime, err := drouting.NewRoutingDiscovery(d).Advertise(context.Background(), name)
	must(err)
	c := cidOf(name)
	emit("advertised", fields{"id": name, "cid": c.String(), "key": c.Hash().HexString(), "ttl_s": lifetime.Seconds()})
}

// findName gives an address of the first provider of the name.
func findName(h host.Host, d *dht, o *options) string {
	for p := range providers(d, o) {
		if p.ID != h.ID() && len(p.Addrs) > 0 {
			suffix := "/p2p/" + p.ID.String()
			return strings.TrimSuffix(p.Addrs[0].String(), suffix) + suffix
		}
	}
	must(fmt.Errorf("nobody provides %q", o.name))
	return ""
}

func providers(d *dht, o *options) <-chan peer.AddrInfo {
	ctx, cancel := context.WithTimeout(context.Background(), o.timeout)
	context.AfterFunc(ctx, cancel)
	found, err := drouting.NewRoutingDiscovery(d).FindPeers(ctx, o.name)
	must(err)
	return found
}

func provideCommand(arguments []string) {
	o := parse("provide", arguments)
	h := newHost(o)
	defer h.Close()
	d := joinDHT(h, o, true)
	reserveSlots(h, o.relays)
	provideName(h, d, o.name)
	reportReady(h)
	waitForSignal()
}

func findCommand(arguments []string) {
	o := parse("find", arguments)
	h := newHost(o)
	d := joinDHT(h, o, false)
	n := 0
	for p := range providers(d, o) {
		n++
		emit("provider", fields{"peer_id": p.ID.String(), "addresses": p.Addrs})
	}
	emit("found", fields{"cid": cidOf(o.name).String(), "providers": n})
	h.Close()
	if n == 0 {
		os.Exit(1)
	}
}
