package ports

import (
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandbar.dev/lib/ports"
)

// openForward opens a port and has it forwarded; it returns the port's address.
func openForward(t *testing.T, protocol ports.Protocol, resolve func() (string, error)) (string, *forward) {
	t.Helper()
	var address string
	descriptor := -1
	if protocol == ports.TCP {
		listener, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		address, descriptor = listener.Addr().String(), copyOf(t, listener)
		listener.Close()
	} else {
		connection, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		address, descriptor = connection.LocalAddr().String(), copyOf(t, connection)
		connection.Close()
	}
	f := newForward(protocol, func(context.Context) (string, error) { return resolve() })
	t.Cleanup(f.stop)
	if err := f.open(descriptor); err != nil {
		t.Fatal(err)
	}
	return address, f
}

func copyOf(t *testing.T, socket syscall.Conn) int {
	t.Helper()
	raw, err := socket.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	descriptor := -1
	raw.Control(func(fd uintptr) { descriptor, err = unix.Dup(int(fd)) })
	if err != nil {
		t.Fatal(err)
	}
	return descriptor
}

// startServer answers every request, which ends with the client's half of the connection, with a prefix and the request.
func startServer(t *testing.T, prefix string) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer connection.Close()
				request, _ := io.ReadAll(connection)
				io.WriteString(connection, prefix+string(request))
			}()
		}
	}()
	return listener
}

func ask(t *testing.T, address, request string) (string, error) {
	t.Helper()
	connection, err := net.Dial("tcp4", address)
	if err != nil {
		return "", err
	}
	defer connection.Close()
	connection.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(connection, request); err != nil {
		return "", err
	}
	if err := connection.(*net.TCPConn).CloseWrite(); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(connection)
	return string(answer), err
}

func TestAClientThatEndsItsRequestStillGetsTheAnswer(t *testing.T) {
	server := startServer(t, "got ")
	address, _ := openForward(t, ports.TCP, func() (string, error) { return server.Addr().String(), nil })
	if answer, err := ask(t, address, "this"); answer != "got this" || err != nil {
		t.Errorf("got %q, %v", answer, err)
	}
}

func TestASuccessorIsFoundAtOnce(t *testing.T) {
	first, second := startServer(t, "first "), startServer(t, "second ")
	place := first
	address, _ := openForward(t, ports.TCP, func() (string, error) { return place.Addr().String(), nil })
	if answer, _ := ask(t, address, ""); answer != "first " {
		t.Fatalf("got %q", answer)
	}
	place = second
	first.Close()
	if answer, err := ask(t, address, ""); answer != "second " {
		t.Errorf("got %q, %v", answer, err)
	}
}

func TestAConnectionWithoutATargetIsReset(t *testing.T) {
	address, _ := openForward(t, ports.TCP, func() (string, error) { return "", errNoEndpoint })
	// The reset may come before or after the client knows that it is connected.
	if _, err := ask(t, address, ""); !errors.Is(err, unix.ECONNRESET) && !errors.Is(err, unix.ENOTCONN) {
		t.Errorf("got %v", err)
	}
}

func TestAStoppedForwardEndsItsConnectionsAndItsSocket(t *testing.T) {
	// One that neither answers nor ends.
	server, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	address, f := openForward(t, ports.TCP, func() (string, error) { return server.Addr().String(), nil })
	connection, err := net.Dial("tcp4", address)
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	connection.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := server.Accept(); err != nil {
		t.Fatal(err)
	}
	f.stop()
	if _, err := connection.Read(make([]byte, 1)); err == nil || errors.Is(err, unix.ETIMEDOUT) {
		t.Errorf("got %v", err)
	}
}

func TestAClosedPortMayBeOpenedAtOnce(t *testing.T) {
	for _, protocol := range []ports.Protocol{ports.TCP, ports.UDP} {
		address, f := openForward(t, protocol, func() (string, error) { return "", errNoEndpoint })
		f.close()
		if protocol == ports.TCP {
			again, err := net.Listen("tcp4", address)
			if err != nil {
				t.Fatal(err)
			}
			again.Close()
		} else {
			again, err := net.ListenPacket("udp4", address)
			if err != nil {
				t.Fatal(err)
			}
			again.Close()
		}
	}
}

func TestATargetThatWasNotFoundIsNotLookedForAtOnce(t *testing.T) {
	asked := 0
	_, f := openForward(t, ports.TCP, func() (string, error) { asked++; return "", errNoEndpoint })
	for range 5 {
		if _, err := f.dial(); !errors.Is(err, errNoEndpoint) {
			t.Errorf("got %v", err)
		}
	}
	if asked != 1 {
		t.Errorf("asked %d times", asked)
	}
	time.Sleep(failureLife)
	f.dial()
	if asked != 2 {
		t.Errorf("asked %d times after a moment", asked)
	}
}
