package main

import (
	"context"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

const tunnelProtocol = "/portkey/tunnel/1.0.0" // raw bytes, as under the Go PeerTunnel's /peertunnel/1.0.0

// tunnelListen leads every tunnel stream to the target.
func tunnelListen(arguments []string) {
	o := parse("tunnel-listen", arguments)
	h := newHost(o)
	defer h.Close()
	h.SetStreamHandler(protocol.ID(o.protocol), func(s network.Stream) {
		c, err := net.Dial("tcp", o.target)
		if err != nil {
			s.Reset()
			emit("target-refused", fields{"message": err})
			return
		}
		emit("tunnel-opened", fields{"peer_id": s.Conn().RemotePeer().String()})
		splice(c.(*net.TCPConn), s)
	})
	reserveSlots(h, o.relays)
	if len(o.bootstrap) > 0 {
		provideName(h, joinDHT(h, o, true), o.name)
	}
	if o.mdns {
		findOnLAN(h)
	}
	reportReady(h)
	waitForSignal()
}

// tunnelDial opens a tunnel stream for every local connection.
func tunnelDial(arguments []string) {
	o := parse("tunnel-dial", arguments)
	h := newHost(o)
	defer h.Close()
	if o.holepunch {
		meetRelays(h, o.relays, patienceForDCUtR)
	}
	provider := reachProvider(h, o)
	listener, err := net.Listen("tcp", o.local)
	must(err)
	emit("listening", fields{"local": listener.Addr().String(), "peer_id": provider.String(), "pid": os.Getpid()})
	go watchPath(h, provider)
	go func() {
		for {
			c, err := listener.Accept()
			must(err)
			go openTunnel(h, provider, protocol.ID(o.protocol), c.(*net.TCPConn))
		}
	}()
	waitForSignal()
}

// patienceForDCUtR bounds the wait for an observed address: the library looks for one after 0.25, 0.75, 1.75 s.
const patienceForDCUtR = 2 * time.Second

func reachProvider(h host.Host, o *options) peer.ID {
	if o.mdns {
		return connectOnLAN(h, o.peerID, o.timeout)
	}
	if o.peer == "" {
		return connect(h, findName(h, joinDHT(h, o, false), o), o.timeout)
	}
	return connect(h, o.peer, o.timeout)
}

func watchPath(h host.Host, p peer.ID) {
	for last := ""; ; time.Sleep(50 * time.Millisecond) {
		if path := bestPath(h, p); path != last {
			emit("path", fields{"peer_id": p.String(), "path": path})
			last = path
		}
	}
}

func openTunnel(h host.Host, p peer.ID, spoken protocol.ID, c *net.TCPConn) {
	ctx, cancel := context.WithTimeout(network.WithAllowLimitedConn(context.Background(), "tunnel"), 30*time.Second)
	s, err := h.NewStream(ctx, p, spoken)
	cancel()
	if err != nil {
		emit("stream-failed", fields{"message": err})
		c.SetLinger(0)
		c.Close()
		return
	}
	splice(c, s)
}

// splice joins a connection and a stream: EOF becomes half-close, any error an abort of both.
func splice(c *net.TCPConn, s network.Stream) {
	abort := func(err error) {
		s.Reset()
		c.SetLinger(0)
		c.Close()
		emit("tunnel-aborted", fields{"message": err})
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		if err := pump(s, c); err != nil {
			abort(err)
			return
		}
		s.CloseWrite()
	}()
	if err := pump(c, s); err != nil {
		abort(err)
	} else {
		c.CloseWrite()
	}
	<-sent
	c.Close()
	s.Close()
}

var buffers = sync.Pool{New: func() any { return new([64 << 10]byte) }}

func pump(to io.Writer, from io.Reader) error {
	buffer := buffers.Get().(*[64 << 10]byte)
	defer buffers.Put(buffer)
	// The wrappers hide ReadFrom and WriteTo, which would bring buffers of their own.
	_, err := io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, buffer[:])
	return err
}
