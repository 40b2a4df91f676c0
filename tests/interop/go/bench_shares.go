package main

import (
	"io"
	"sync/atomic"
)

// benchShare is what one of several streams has moved so far: sent, with what lies in buffers, or received.
type benchShare struct{ moved atomic.Int64 }

// of counts what is written on its way; nothing else of the writer is to be seen, so the copier's buffer is used.
func (s *benchShare) of(to io.Writer) io.Writer { return &countedWriter{to, s} }

type countedWriter struct {
	to    io.Writer
	share *benchShare
}

func (w *countedWriter) Write(p []byte) (int, error) {
	n, err := w.to.Write(p)
	w.share.moved.Add(int64(n))
	return n, err
}

// largestBySmallest tells how evenly streams have been served: 1 for equal shares.
func largestBySmallest(shares []benchShare) float64 {
	largest, smallest := shares[0].moved.Load(), shares[0].moved.Load()
	for i := range shares {
		moved := shares[i].moved.Load()
		largest, smallest = max(largest, moved), min(smallest, moved)
	}
	return float64(largest) / float64(max(1, smallest))
}
