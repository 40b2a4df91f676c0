// gopeer is the go-libp2p end of the interop tests and of the benchmark. Every command prints one JSON
// object a line, with the same kinds as `pt --json` where both have them (ready, listening).
package main

import (
	"fmt"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

var commands = map[string]func([]string){
	"relay":         relayCommand,
	"tunnel-listen": tunnelListen,
	"tunnel-dial":   tunnelDial,
	"provide":       provideCommand,
	"find":          findCommand,
	"echo-listen":   echoListen,
	"echo-dial":     echoDial,
	"ping":          pingCommand,
	"raw-yamux":     rawYamux,
	"bench-server":  benchServer,
	"bench-client":  benchClient,
}

func main() {
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		names := slices.Sorted(maps.Keys(commands))
		fmt.Fprintf(os.Stderr, "usage: gopeer %s [flags]\n", strings.Join(names, "|"))
		os.Exit(2)
	}
	commands[os.Args[1]](os.Args[2:])
}

func waitForSignal() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	<-signals
}
