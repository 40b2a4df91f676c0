package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"flag"
	"io"
	"math/rand/v2"
	"net"
	"os"
)

// The first byte of a connection says what the server does with it.
const (
	sink        = 's' // reads to EOF, answers the count (8 bytes, big endian)
	digestSink  = 'S' // the same, then the SHA-256 of what came
	source      = 'g' // reads a count, sends as many bytes
	noisySource = 'G' // the same with pseudo-random bytes, then their SHA-256
	echoBack    = 'e' // sends back what comes
)

const benchBuffer = 256 << 10 // bytes

func benchServer(arguments []string) {
	set := flag.NewFlagSet("bench-server", flag.ExitOnError)
	address := set.String("listen", "127.0.0.1:0", "host:port")
	must(set.Parse(arguments))
	listener, err := net.Listen("tcp", *address)
	must(err)
	emit("listening", fields{"local": listener.Addr().String(), "pid": os.Getpid()})
	for {
		c, err := listener.Accept()
		must(err)
		go func() {
			defer c.Close()
			serveBench(c)
		}()
	}
}

// serveBench may end early at any error: the client sees it as a short or missing answer.
func serveBench(c net.Conn) {
	var mode [1]byte
	if _, err := io.ReadFull(c, mode[:]); err != nil {
		return
	}
	switch buffer := make([]byte, benchBuffer); mode[0] {
	case sink:
		n, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{c}, buffer)
		if err == nil {
			c.Write(binary.BigEndian.AppendUint64(nil, uint64(n)))
		}
	case digestSink:
		digest := sha256.New()
		n, err := io.CopyBuffer(digest, struct{ io.Reader }{c}, buffer)
		if err == nil {
			c.Write(digest.Sum(binary.BigEndian.AppendUint64(nil, uint64(n))))
		}
	case echoBack:
		io.CopyBuffer(struct{ io.Writer }{c}, struct{ io.Reader }{c}, buffer)
	case source, noisySource:
		var count [8]byte
		if _, err := io.ReadFull(c, count[:]); err == nil {
			sendBench(c, mode[0], int64(binary.BigEndian.Uint64(count[:])), buffer)
		}
	}
}

func sendBench(to io.Writer, mode byte, count int64, buffer []byte) {
	if mode == source {
		io.CopyBuffer(struct{ io.Writer }{to}, io.LimitReader(zeros{}, count), buffer)
		return
	}
	digest := sha256.New()
	if _, err := io.CopyBuffer(struct{ io.Writer }{to}, io.TeeReader(benchNoise(count), digest), buffer); err == nil {
		to.Write(digest.Sum(nil))
	}
}

// benchNoise is count pseudo-random bytes; the buffer spares a call into the generator for every 8 bytes.
func benchNoise(count int64) io.Reader {
	return bufio.NewReaderSize(io.LimitReader(rand.NewChaCha8([32]byte{}), count), benchBuffer)
}

type zeros struct{}

func (zeros) Read(into []byte) (int, error) { return len(into), nil }
