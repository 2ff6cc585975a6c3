package mounts

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	clientset "k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"sandbar.dev/lib/mounts"
	"sandbar.dev/lib/packets"
)

const (
	systemNamespace = "sandbar-system"
	// On every ConfigMap that records a mount.
	recordLabel = "sandbar.dev/mount"
)

// Run serves mount containers and commands, and follows the records, until ctx ends.
func (s *Service) Run(ctx context.Context, client clientset.Interface) error {
	control, err := listen(mounts.ControlSocket)
	if err != nil {
		return err
	}
	defer control.Close()
	go s.serveCommands(control)
	givers, err := packets.Serve(filepath.Join(mounts.MeetingDirectory, mounts.SocketName), s.serveGiver)
	if err != nil {
		return err
	}
	defer givers.Close()
	if err := s.watchMounts(ctx); err != nil {
		return err
	}
	return s.follow(ctx, client)
}

// healDelay lets a burst of mounts, as of a pod that starts, be looked at once.
const healDelay = 100 * time.Millisecond

// watchMounts has what was removed with a folder mounted again. The kernel says when the mounts of the node change.
func (s *Service) watchMounts(ctx context.Context) error {
	var table int
	var err error
	// The namespace that is watched is that of the thread that opens it.
	s.node.do(func() { table, err = unix.Open("/proc/thread-self/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return fmt.Errorf("watch mounts: %w", err)
	}
	go func() {
		for ctx.Err() == nil {
			events := []unix.PollFd{{Fd: int32(table), Events: unix.POLLPRI}}
			if _, err := unix.Poll(events, -1); err != nil {
				continue
			}
			time.Sleep(healDelay)
			s.node.do(s.heal)
		}
	}()
	return nil
}

func (s *Service) follow(ctx context.Context, client clientset.Interface) error {
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0,
		informers.WithNamespace(systemNamespace),
		informers.WithTweakListOptions(func(options *metav1.ListOptions) { options.LabelSelector = recordLabel }))
	informer := factory.Core().V1().ConfigMaps().Informer()
	set := func(object any) {
		if r, isRecord := parseRecord(object.(*v1.ConfigMap)); isRecord {
			s.node.do(func() { s.setRecord(r) })
		}
	}
	registration, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    set,
		UpdateFunc: func(_, object any) { set(object) },
		DeleteFunc: func(object any) {
			if unknown, isUnknown := object.(cache.DeletedFinalStateUnknown); isUnknown {
				object = unknown.Obj
			}
			if r, isRecord := parseRecord(object.(*v1.ConfigMap)); isRecord {
				s.node.do(func() { s.removeRecord(r.id) })
			}
		},
	})
	if err != nil {
		return err
	}
	factory.Start(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), registration.HasSynced) {
		return ctx.Err()
	}
	s.node.do(s.synced)
	<-ctx.Done()
	return ctx.Err()
}

func listen(path string) (*net.UnixListener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	return listener, os.Chmod(path, 0o600)
}

func (s *Service) serveCommands(listener *net.UnixListener) {
	for {
		connection, err := listener.AcceptUnix()
		if err != nil {
			return
		}
		go func() {
			defer connection.Close()
			var request mounts.Request
			if json.NewDecoder(connection).Decode(&request) != nil {
				return
			}
			response, err := s.answer(request)
			if err != nil {
				response.Error = err.Error()
			}
			// Whoever asked may have gone.
			_ = mounts.Answer(connection, response)
		}()
	}
}

func (s *Service) answer(request mounts.Request) (mounts.Response, error) {
	switch request.Command {
	case "list":
		return mounts.Response{Mounts: s.List()}, nil
	case "wait":
		statuses, err := s.Wait(request.IDs, time.Duration(request.TimeoutMs)*time.Millisecond)
		return mounts.Response{Mounts: statuses}, err
	case "prepare":
		return mounts.Response{}, s.Prepare(request.Bundle)
	case "attach":
		attachments, err := s.Attach(request.Bundle)
		return mounts.Response{Attachments: attachments}, err
	case "discard":
		s.node.do(func() { s.discardWritten(request.KeptNamespaces) })
		return mounts.Response{}, nil
	default:
		return mounts.Response{}, fmt.Errorf("unknown command %q", request.Command)
	}
}
