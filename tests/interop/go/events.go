package main

import (
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"
)

// fields are what one event says, beside its kind and time.
type fields map[string]any

var emitting sync.Mutex

func emit(kind string, more fields) {
	line := fields{"kind": kind, "time": time.Now().UTC().Format("15:04:05.000")}
	for name, value := range more {
		if err, ok := value.(error); ok {
			value = err.Error()
		}
		line[name] = value
	}
	text, err := json.Marshal(line)
	if err != nil {
		panic(err)
	}
	emitting.Lock()
	defer emitting.Unlock()
	fmt.Println(string(text))
}

// must ends the program, because a peer that half works makes a test that half tests.
func must(err error) {
	if err != nil {
		emit("error", fields{"message": err})
		os.Exit(1)
	}
}
