package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"os"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
)

const echoProtocol = protocol.ID("/portkey/echo/1.0.0")

const curtProtocol = protocol.ID("/portkey/curt/1.0.0")

// answerAndClose answers a first byte with 500 and closes the stream, whatever else is to come.
func answerAndClose(s network.Stream) {
	if _, err := io.ReadFull(s, make([]byte, 1)); err == nil {
		s.Write(make([]byte, 500))
	}
	s.Close()
}

func echo(s network.Stream) {
	n, err := io.Copy(s, s)
	emit("echoed", fields{"bytes": n, "message": fmt.Sprint(err), "path": pathOf(s.Conn())})
	if err != nil {
		s.Reset()
		return
	}
	s.Close()
}

func echoListen(arguments []string) {
	o := parse("echo-listen", arguments)
	h := newHost(o)
	defer h.Close()
	reserveSlots(h, o.relays)
	reportReady(h)
	waitForSignal()
}

// echoDial sends -mib MiB through the peer's echo, half-closes and compares the digests.
func echoDial(arguments []string) {
	o := parse("echo-dial", arguments)
	h := newHost(o)
	defer h.Close()
	p := connect(h, o.peer, o.timeout)
	ctx, cancel := context.WithTimeout(network.WithAllowLimitedConn(context.Background(), "echo"), o.timeout)
	defer cancel()
	s, err := h.NewStream(ctx, p, echoProtocol)
	must(err)
	must(s.SetDeadline(time.Now().Add(o.timeout)))
	began, total := time.Now(), int64(o.mib)<<20
	sent, received := sha256.New(), sha256.New()
	sending := make(chan error, 1)
	go func() { sending <- sendNoise(s, sent, total) }()
	n, readError := io.Copy(received, s)
	writeError := <-sending
	same := readError == nil && writeError == nil && n == total && string(sent.Sum(nil)) == string(received.Sum(nil))
	seconds := time.Since(began).Seconds()
	emit("echo", fields{
		"ok": same, "bytes": n, "path": bestPath(h, p), "seconds": seconds, "mb_per_s": float64(n) / 1e6 / seconds,
		"read_error": fmt.Sprint(readError), "write_error": fmt.Sprint(writeError),
	})
	if !same {
		os.Exit(1)
	}
}

// sendNoise writes reproducible pseudo-random bytes, digests them and half-closes.
func sendNoise(s network.Stream, digest hash.Hash, total int64) error {
	source := io.LimitReader(rand.NewChaCha8([32]byte{}), total)
	if _, err := io.CopyBuffer(s, io.TeeReader(source, digest), make([]byte, 64<<10)); err != nil {
		return err
	}
	return s.CloseWrite()
}

func pingCommand(arguments []string) {
	o := parse("ping", arguments)
	h := newHost(o)
	defer h.Close()
	p := connect(h, o.peer, o.timeout)
	ctx, cancel := context.WithTimeout(context.Background(), o.timeout)
	defer cancel()
	answers := ping.Ping(ctx, h, p)
	for range 5 {
		answer := <-answers
		must(answer.Error)
		emit("pong", fields{"peer_id": p.String(), "rtt_ms": float64(answer.RTT.Microseconds()) / 1e3})
	}
}
