package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"google.golang.org/protobuf/encoding/protowire"
)

// Message types and limits of the libp2p Kademlia DHT specification.
const (
	kadPut = iota
	kadGet
	kadAddProvider
	kadGetProviders
	kadFindNode
	kadPing
)

const maxKadMessage = 4 << 20 // bytes

type kadPeer struct {
	id        peer.ID
	addresses []ma.Multiaddr
	connected bool
}

type kadMessage struct {
	kind              uint64
	key, record       []byte
	closer, providers []kadPeer
}

func appendBytes(to []byte, field protowire.Number, value []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(to, field, protowire.BytesType), value)
}

func appendVarint(to []byte, field protowire.Number, value uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(to, field, protowire.VarintType), value)
}

func (p kadPeer) encode() []byte {
	encoded := appendBytes(nil, 1, []byte(p.id))
	for _, address := range p.addresses {
		encoded = appendBytes(encoded, 2, address.Bytes())
	}
	if p.connected {
		encoded = appendVarint(encoded, 3, 1)
	}
	return encoded
}

func (m *kadMessage) encode() []byte {
	encoded := appendVarint(nil, 1, m.kind)
	if len(m.key) > 0 {
		encoded = appendBytes(encoded, 2, m.key)
	}
	if m.record != nil {
		encoded = appendBytes(encoded, 3, m.record)
	}
	for _, p := range m.closer {
		encoded = appendBytes(encoded, 8, p.encode())
	}
	for _, p := range m.providers {
		encoded = appendBytes(encoded, 9, p.encode())
	}
	return encoded
}

// walk gives every field of a protobuf message to visit.
func walk(encoded []byte, visit func(field protowire.Number, number uint64, bytes []byte) error) error {
	for len(encoded) > 0 {
		field, kind, n := protowire.ConsumeTag(encoded)
		if n < 0 {
			return protowire.ParseError(n)
		}
		encoded = encoded[n:]
		var number uint64
		var bytes []byte
		switch kind {
		case protowire.VarintType:
			number, n = protowire.ConsumeVarint(encoded)
		case protowire.BytesType:
			bytes, n = protowire.ConsumeBytes(encoded)
		default:
			n = protowire.ConsumeFieldValue(field, kind, encoded)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		if kind == protowire.VarintType || kind == protowire.BytesType {
			if err := visit(field, number, bytes); err != nil {
				return err
			}
		}
		encoded = encoded[n:]
	}
	return nil
}

func decodePeer(encoded []byte) (p kadPeer, err error) {
	err = walk(encoded, func(field protowire.Number, number uint64, bytes []byte) (err error) {
		switch field {
		case 1:
			p.id, err = peer.IDFromBytes(bytes)
		case 2:
			if address, err := ma.NewMultiaddrBytes(bytes); err == nil {
				p.addresses = append(p.addresses, address)
			}
		case 3:
			p.connected = number == 1
		}
		return err
	})
	return p, err
}

func decodeMessage(encoded []byte) (*kadMessage, error) {
	m := &kadMessage{}
	err := walk(encoded, func(field protowire.Number, number uint64, bytes []byte) error {
		switch field {
		case 1:
			m.kind = number
		case 2:
			m.key = bytes
		case 3:
			m.record = bytes
		case 8, 9:
			p, err := decodePeer(bytes)
			if err != nil {
				return nil // One bad entry mustn't lose the rest.
			}
			if field == 8 {
				m.closer = append(m.closer, p)
			} else {
				m.providers = append(m.providers, p)
			}
		}
		return nil
	})
	return m, err
}

func readMessage(r *bufio.Reader) (*kadMessage, error) {
	size, err := binary.ReadUvarint(r)
	if err != nil {
		return nil, err
	}
	if size > maxKadMessage {
		return nil, errors.New("kad message too large")
	}
	encoded := make([]byte, size)
	if _, err = io.ReadFull(r, encoded); err != nil {
		return nil, err
	}
	return decodeMessage(encoded)
}

func writeMessage(w io.Writer, m *kadMessage) error {
	encoded := m.encode()
	_, err := w.Write(append(binary.AppendUvarint(nil, uint64(len(encoded))), encoded...))
	return err
}
