package main

import (
	"context"
	"io"
	"log"
	"net"

	yamux "github.com/libp2p/go-yamux/v5"
)

// rawYamux serves yamux over bare TCP, so that its frames can be read off the wire. The first byte of a
// stream says what to do with it: (e)cho, (c)lose, (r)eset, (o)pen one back, go (a)way.
func rawYamux(arguments []string) {
	o := parse("raw-yamux", arguments)
	listener, err := net.Listen("tcp", o.local)
	must(err)
	emit("listening", fields{"local": listener.Addr().String()})
	for {
		c, err := listener.Accept()
		must(err)
		session, err := yamux.Server(c, yamux.DefaultConfig(), nil)
		must(err)
		go func() {
			for {
				s, err := session.AcceptStream()
				if err != nil {
					return
				}
				if err := obeyRaw(session, s); err != nil {
					log.Print(err)
				}
			}
		}()
	}
}

func obeyRaw(session *yamux.Session, s *yamux.Stream) error {
	var command [1]byte
	if _, err := io.ReadFull(s, command[:]); err != nil {
		return err
	}
	switch command[0] {
	case 'a':
		if err := session.GoAway(); err != nil {
			return err
		}
	case 'r':
		return s.Reset()
	case 'e':
		if _, err := io.Copy(s, s); err != nil {
			return err
		}
	case 'o':
		back, err := session.OpenStream(context.Background())
		if err != nil {
			return err
		}
		if _, err := back.Write([]byte("hello")); err != nil {
			return err
		}
		return back.CloseWrite()
	}
	return s.CloseWrite()
}
