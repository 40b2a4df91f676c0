package main

import (
	"flag"
	"strings"
	"time"
)

type repeated []string

func (r *repeated) String() string         { return strings.Join(*r, ",") }
func (r *repeated) Set(value string) error { *r = append(*r, value); return nil }

type options struct {
	listen, relays, bootstrap      repeated
	transport, prefix, seed        string
	target, local, peer, peerID    string
	name, protocol                 string
	tcpOnly, noListen, mdns, dcutr bool
	unlimited, noDHT, holepunch    bool
	mib                            int
	timeout                        time.Duration
}

func parse(command string, arguments []string) *options {
	o := &options{}
	set := flag.NewFlagSet(command, flag.ExitOnError)
	set.Var(&o.listen, "listen", "multiaddr to listen on (repeatable)")
	set.Var(&o.relays, "relay", "multiaddr of a relay to reserve a slot at (repeatable)")
	set.Var(&o.bootstrap, "bootstrap", "multiaddr of a DHT node (repeatable)")
	set.StringVar(&o.transport, "transport", "all", "noise|tls|quic|all, or to be refused: plain|secio|mplex")
	set.StringVar(&o.prefix, "prefix", "/ipfs", "DHT protocol prefix")
	set.StringVar(&o.seed, "seed", "", "fixed key: Ed25519 seed = sha256(SEED)")
	set.StringVar(&o.target, "target", "", "host:port that a tunnel leads to")
	set.StringVar(&o.local, "local", "127.0.0.1:0", "host:port that a tunnel starts at")
	set.StringVar(&o.peer, "peer", "", "multiaddr ending in /p2p/ID")
	set.StringVar(&o.peerID, "peer-id", "", "with -mdns: the peer to wait for")
	set.StringVar(&o.name, "id", "", "name to provide or find in the DHT")
	set.StringVar(&o.protocol, "protocol", tunnelProtocol, "that tunnels are opened with")
	set.BoolVar(&o.tcpOnly, "tcp-only", false, "don't listen on QUIC addresses")
	set.BoolVar(&o.noListen, "no-listen", false, "only dial")
	set.BoolVar(&o.mdns, "mdns", false, "announce and search on the LAN")
	set.BoolVar(&o.dcutr, "dcutr", false, "run a DCUtR service that also uses loopback addresses")
	set.BoolVar(&o.holepunch, "holepunch", false, "run the library's own DCUtR service; meet each -relay before dialling")
	set.BoolVar(&o.unlimited, "unlimited", false, "relay without limits on data and time")
	set.BoolVar(&o.noDHT, "no-dht", false, "relay without a DHT node")
	set.IntVar(&o.mib, "mib", 64, "MiB to echo")
	set.DurationVar(&o.timeout, "timeout", 60*time.Second, "deadline of a dial, a search or an echo")
	must(set.Parse(arguments))
	return o
}

// addresses to listen on: those that were asked for, less what the transport can't do.
func (o *options) addresses() []string {
	wanted := []string(o.listen)
	if len(wanted) == 0 {
		wanted = []string{"/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"}
	}
	if o.noListen {
		return nil
	}
	var usable []string
	for _, address := range wanted {
		isQUIC := strings.Contains(address, "quic")
		if isQUIC && (o.tcpOnly || !o.hasQUIC()) || !isQUIC && !o.hasTCP() {
			continue
		}
		usable = append(usable, address)
	}
	return usable
}

func (o *options) hasQUIC() bool { return o.transport == "quic" || o.transport == "all" }
func (o *options) hasTCP() bool  { return o.transport != "quic" }
