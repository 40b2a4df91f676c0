package main

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/protocol/holepunch"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"
)

// relayed addresses to advertise beside the listening ones, once a relay has given a slot.
var relayedAddresses atomic.Pointer[[]ma.Multiaddr]

func newHost(o *options, more ...libp2p.Option) host.Host {
	// No resource limits: a benchmark measures the stack, and bursts are part of the tests.
	limits, err := rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(rcmgr.InfiniteLimits))
	must(err)
	all := append(transportOptions(o.transport),
		libp2p.ResourceManager(limits), libp2p.UserAgent("gopeer"), libp2p.Ping(true),
		libp2p.DisableMetrics(), libp2p.EnableRelay(), libp2p.AddrsFactory(withRelayed))
	if addresses := o.addresses(); len(addresses) > 0 {
		all = append(all, libp2p.ListenAddrStrings(addresses...))
	} else {
		all = append(all, libp2p.NoListenAddrs, libp2p.EnableRelay())
	}
	if o.seed != "" {
		all = append(all, libp2p.Identity(keyOf(o.seed)))
	}
	if o.holepunch {
		all = append(all, libp2p.EnableHolePunching(holepunch.WithTracer(punchTracer{})))
	}
	h, err := libp2p.New(append(all, more...)...)
	must(err)
	if o.dcutr {
		punchFromLoopback(h)
	}
	reportConnections(h)
	reportIdentify(h)
	h.SetStreamHandler(echoProtocol, echo)
	h.SetStreamHandler(curtProtocol, answerAndClose)
	return h
}

func transportOptions(name string) []libp2p.Option {
	var (
		overTCP   = libp2p.Transport(tcp.NewTCPTransport)
		withNoise = libp2p.Security(noise.ID, noise.New)
		withTLS   = libp2p.Security(libp2ptls.ID, libp2ptls.New)
		withYamux = libp2p.Muxer(yamux.ID, yamux.DefaultTransport)
	)
	switch name {
	case "noise":
		return []libp2p.Option{overTCP, withNoise, withYamux}
	case "tls":
		return []libp2p.Option{overTCP, withTLS, withYamux}
	case "quic": // Noise is for relayed connections only.
		return []libp2p.Option{libp2p.Transport(quic.NewTransport), withNoise, withYamux}
	case "all":
		return []libp2p.Option{overTCP, libp2p.Transport(quic.NewTransport), withNoise, withTLS, withYamux}
	case "plain":
		return []libp2p.Option{overTCP, libp2p.NoSecurity, withYamux}
	// The name alone decides the negotiation, so what would follow it needn't be the real thing.
	case "secio":
		return []libp2p.Option{overTCP, libp2p.Security("/secio/1.0.0", noise.New), withYamux}
	case "mplex":
		return []libp2p.Option{overTCP, withNoise, withTLS, libp2p.Muxer("/mplex/6.7.0", yamux.DefaultTransport)}
	}
	must(fmt.Errorf("no transport %q", name))
	return nil
}

func keyOf(seed string) crypto.PrivKey {
	digest := sha256.Sum256([]byte(seed))
	key, err := crypto.UnmarshalEd25519PrivateKey(ed25519.NewKeyFromSeed(digest[:]))
	must(err)
	return key
}

func withRelayed(addresses []ma.Multiaddr) []ma.Multiaddr {
	if relayed := relayedAddresses.Load(); relayed != nil {
		return append(append([]ma.Multiaddr{}, addresses...), *relayed...)
	}
	return addresses
}

func reportReady(h host.Host) {
	var addresses []string
	for _, address := range h.Addrs() {
		addresses = append(addresses, address.String()+"/p2p/"+h.ID().String())
	}
	emit("ready", fields{"peer_id": h.ID().String(), "addresses": addresses, "pid": os.Getpid()})
}

func reportConnections(h host.Host) {
	h.Network().Notify(&network.NotifyBundle{
		ConnectedF: func(_ network.Network, c network.Conn) {
			state := c.ConnState()
			emit("connected", fields{
				"peer_id": c.RemotePeer().String(), "address": c.RemoteMultiaddr().String(),
				"direction": c.Stat().Direction.String(), "limited": c.Stat().Limited, "path": pathOf(c),
				"transport": state.Transport, "security": state.Security, "muxer": state.StreamMultiplexer,
			})
		},
		DisconnectedF: func(_ network.Network, c network.Conn) {
			emit("disconnected", fields{"peer_id": c.RemotePeer().String(), "address": c.RemoteMultiaddr().String()})
		},
	})
}

func reportIdentify(h host.Host) {
	events, err := h.EventBus().Subscribe(new(event.EvtPeerIdentificationCompleted))
	must(err)
	go func() {
		for e := range events.Out() {
			done := e.(event.EvtPeerIdentificationCompleted)
			observed := ""
			if done.ObservedAddr != nil {
				observed = done.ObservedAddr.String()
			}
			emit("identified", fields{
				"peer_id": done.Peer.String(), "agent": done.AgentVersion, "protocols": done.Protocols,
				"observed": observed, "listening": done.ListenAddrs, "signed_record": done.SignedPeerRecord != nil,
			})
		}
	}()
}

func isRelayed(address ma.Multiaddr) bool {
	_, err := address.ValueForProtocol(ma.P_CIRCUIT)
	return err == nil
}

func pathOf(c network.Conn) string {
	if isRelayed(c.RemoteMultiaddr()) {
		return "relayed"
	}
	return "direct"
}

// bestPath to a peer: none, relayed or direct.
func bestPath(h host.Host, p peer.ID) string {
	best := "none"
	for _, c := range h.Network().ConnsToPeer(p) {
		if best != "direct" {
			best = pathOf(c)
		}
	}
	return best
}

func connect(h host.Host, address string, timeout time.Duration) peer.ID {
	info, err := peer.AddrInfoFromString(address)
	must(err)
	h.Peerstore().AddAddrs(info.ID, info.Addrs, peerstore.PermanentAddrTTL)
	ctx, cancel := context.WithTimeout(network.WithAllowLimitedConn(context.Background(), "tunnel"), timeout)
	defer cancel()
	must(h.Connect(ctx, *info))
	return info.ID
}
