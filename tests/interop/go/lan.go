package main

import (
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/discovery/mdns"
)

type lanPeers chan peer.AddrInfo

func (found lanPeers) HandlePeerFound(info peer.AddrInfo) {
	emit("mdns-found", fields{"peer_id": info.ID.String(), "addresses": info.Addrs})
	select {
	case found <- info:
	default: // A provider announces, and reads nobody's answers.
	}
}

// findOnLAN announces this host by mDNS and yields those of others.
func findOnLAN(h host.Host) lanPeers {
	found := make(lanPeers, 64)
	must(mdns.NewMdnsService(h, "", found).Start())
	return found
}

func connectOnLAN(h host.Host, wanted string, timeout time.Duration) peer.ID {
	found, deadline := findOnLAN(h), time.After(timeout)
	for {
		select {
		case info := <-found:
			if info.ID.String() == wanted {
				return connect(h, info.Addrs[0].String()+"/p2p/"+wanted, timeout)
			}
		case <-deadline:
			must(fmt.Errorf("%s not found by mDNS within %s", wanted, timeout))
		}
	}
}
