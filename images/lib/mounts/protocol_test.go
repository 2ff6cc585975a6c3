package mounts

import (
	"net"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"golang.org/x/sys/unix"

	"sandbar.dev/lib/packets"
)

func TestWantedPathsComeThroughAsTheyAre(t *testing.T) {
	for _, wanted := range [][]Wanted{
		nil,
		{{ID: "a", Path: "."}},
		{{ID: "a", Path: "src: x, y"}, {ID: "b", Path: "ünï/\nline"}},
	} {
		packet, err := EncodeWanted(wanted)
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeWanted(packet)
		if err != nil || (len(wanted) > 0 && !reflect.DeepEqual(got, wanted)) || len(got) != len(wanted) {
			t.Errorf("%q: got %q, %v", wanted, got, err)
		}
	}
}

func TestAZeroByteIsRefused(t *testing.T) {
	if _, err := EncodeWanted([]Wanted{{ID: "a", Path: "b\x00c"}}); err == nil {
		t.Error("no error")
	}
}

func TestADescriptorTravelsWithItsHandover(t *testing.T) {
	server, client := connect(t)
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := SendHandover(client, Handover{ID: "a", State: Present, Descriptor: int(file.Fd())}); err != nil {
		t.Fatal(err)
	}
	if err := SendHandover(client, Handover{ID: "b", State: Missing, Detail: "gone", Descriptor: -1}); err != nil {
		t.Fatal(err)
	}
	first, err := ReceiveHandover(server)
	if err != nil || first.ID != "a" || first.State != Present {
		t.Fatalf("got %+v, %v", first, err)
	}
	defer unix.Close(first.Descriptor)
	var sent, received unix.Stat_t
	if unix.Fstat(int(file.Fd()), &sent) != nil || unix.Fstat(first.Descriptor, &received) != nil || sent.Ino != received.Ino {
		t.Error("another file was received")
	}
	second, err := ReceiveHandover(server)
	if want := (Handover{ID: "b", State: Missing, Detail: "gone", Descriptor: -1}); err != nil || second != want {
		t.Errorf("got %+v, %v", second, err)
	}
	client.Close()
	if _, err := ReceiveHandover(server); err == nil {
		t.Error("the end of the connection is no error")
	}
}

func connect(t *testing.T) (server, client *net.UnixConn) {
	t.Helper()
	address := &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: packets.Network}
	listener, err := net.ListenUnix(packets.Network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if client, err = net.DialUnix(packets.Network, nil, address); err != nil {
		t.Fatal(err)
	}
	if server, err = listener.AcceptUnix(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close(); client.Close() })
	return server, client
}
