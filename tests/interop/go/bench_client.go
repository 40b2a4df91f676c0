package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"
)

var errDigest = errors.New("digests or counts differ")

func benchClient(arguments []string) {
	set := flag.NewFlagSet("bench-client", flag.ExitOnError)
	address := set.String("addr", "", "host:port of a bench-server or of a tunnel to it")
	mode := set.String("mode", "send", "send|recv|latency|connections")
	mib := set.Int("mib", 1024, "send, recv: MiB in all")
	n := set.Int("n", 5000, "latency, connections: how many")
	parallel := set.Int("c", 1, "send, recv, connections: how many at once")
	verify := set.Bool("verify", false, "send, recv: random bytes, compare digests")
	must(set.Parse(arguments))
	bytesEach := int64(*mib) << 20 / int64(*parallel)
	switch *mode {
	case "send":
		benchBulk(*mode, *parallel, bytesEach, func(s *benchShare) error { return benchSend(*address, bytesEach, *verify, s) })
	case "recv":
		benchBulk(*mode, *parallel, bytesEach, func(s *benchShare) error { return benchReceive(*address, bytesEach, *verify, s) })
	case "latency":
		benchLatency(*address, *n)
	case "connections":
		benchConnections(*address, *n, *parallel)
	default:
		must(fmt.Errorf("no mode %q", *mode))
	}
}

func dialBench(address string) *net.TCPConn {
	c, err := net.DialTimeout("tcp", address, 10*time.Second)
	must(err)
	return c.(*net.TCPConn)
}

// benchBulk runs all streams to their ends; how even their shares were shows at the moment when the first one ends.
func benchBulk(mode string, parallel int, bytesEach int64, work func(*benchShare) error) {
	began := time.Now()
	results := make(chan error, parallel)
	shares := make([]benchShare, parallel)
	var first sync.Once
	var share float64
	for i := range shares {
		go func() {
			err := work(&shares[i])
			first.Do(func() { share = largestBySmallest(shares) })
			results <- err
		}()
	}
	for range parallel {
		must(<-results)
	}
	total, seconds := float64(bytesEach)*float64(parallel), time.Since(began).Seconds()
	emit(mode, fields{"bytes": int64(total), "seconds": seconds, "mb_per_s": total / 1e6 / seconds, "parallel": parallel, "share": share})
}

func benchSend(address string, count int64, verify bool, share *benchShare) error {
	c := dialBench(address)
	defer c.Close()
	mode, from, digest := byte(sink), io.LimitReader(zeros{}, count), sha256.New()
	if verify {
		mode, from = digestSink, io.TeeReader(benchNoise(count), digest)
	}
	if _, err := c.Write([]byte{mode}); err != nil {
		return err
	}
	if _, err := io.CopyBuffer(share.of(c), from, make([]byte, benchBuffer)); err != nil {
		return err
	}
	if err := c.CloseWrite(); err != nil {
		return err
	}
	want := binary.BigEndian.AppendUint64(nil, uint64(count))
	if verify {
		want = digest.Sum(want)
	}
	if answer, err := io.ReadAll(c); err != nil || !bytes.Equal(answer, want) {
		return errors.Join(err, errDigest)
	}
	return nil
}

func benchReceive(address string, count int64, verify bool, share *benchShare) error {
	c := dialBench(address)
	defer c.Close()
	mode, digest := byte(source), sha256.New()
	to := io.Writer(io.Discard)
	if verify {
		mode, to = noisySource, digest
	}
	if _, err := c.Write(binary.BigEndian.AppendUint64([]byte{mode}, uint64(count))); err != nil {
		return err
	}
	n, err := io.CopyBuffer(share.of(to), io.LimitReader(c, count), make([]byte, benchBuffer))
	if err != nil || n != count {
		return errors.Join(err, errDigest)
	}
	if rest, err := io.ReadAll(c); err != nil || verify && !bytes.Equal(rest, digest.Sum(nil)) {
		return errors.Join(err, errDigest)
	}
	return nil
}

// benchLatency times one byte there and back, n times after 200 to warm up.
func benchLatency(address string, n int) {
	c := dialBench(address)
	defer c.Close()
	_, err := c.Write([]byte{echoBack})
	must(err)
	var times []time.Duration
	for i := range n + 200 {
		began := time.Now()
		must(bounce(c))
		if i >= 200 {
			times = append(times, time.Since(began))
		}
	}
	emitTimes("latency", times, fields{})
}

func bounce(c net.Conn) error {
	var one [1]byte
	if _, err := c.Write(one[:]); err != nil {
		return err
	}
	_, err := io.ReadFull(c, one[:])
	return err
}

// benchConnections opens n connections, parallel at once, each for one byte there and back. Failures are counted:
// libp2p-stream, under the Rust peer, drops streams that come in bursts.
func benchConnections(address string, n, parallel int) {
	began := time.Now()
	results := make(chan []time.Duration, parallel)
	for range parallel {
		go func() {
			var times []time.Duration
			for range n / parallel {
				began := time.Now()
				if visitBench(address) == nil {
					times = append(times, time.Since(began))
				}
			}
			results <- times
		}()
	}
	var times []time.Duration
	for range parallel {
		times = append(times, <-results...)
	}
	rate := float64(len(times)) / time.Since(began).Seconds()
	emitTimes("connections", times, fields{"parallel": parallel, "per_s": rate, "failed": n/parallel*parallel - len(times)})
}

func visitBench(address string) error {
	c := dialBench(address)
	defer c.Close()
	if _, err := c.Write([]byte{echoBack}); err != nil {
		return err
	}
	return bounce(c)
}

func emitTimes(kind string, times []time.Duration, more fields) {
	if len(times) == 0 {
		must(fmt.Errorf("%s: every try failed", kind))
	}
	slices.Sort(times)
	micros := func(index int) float64 { return float64(times[index].Nanoseconds()) / 1e3 }
	more["n"], more["p50_us"], more["p99_us"], more["max_us"] =
		len(times), micros(len(times)/2), micros(len(times)*99/100), micros(len(times)-1)
	emit(kind, more)
}
