package main

import (
	"testing"

	"github.com/coredns/caddy"
)

// A directive without its import is an error only once a Corefile names it.
func TestEveryDirectiveHasItsPlugin(t *testing.T) {
	for _, directive := range directives {
		if _, err := caddy.DirectiveAction("dns", directive); err != nil {
			t.Error(err)
		}
	}
}
