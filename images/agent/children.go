package main

import (
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// children owns every wait4 call of process 1. Orphans of pods, shims and `docker exec` are reparented to it and must
// be reaped; os/exec cannot be used beside that, since both would wait for the same processes.
type children struct {
	lock    sync.Mutex
	waiting map[int]chan syscall.WaitStatus
}

func newChildren() *children {
	c := &children{waiting: map[int]chan syscall.WaitStatus{}}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGCHLD)
	go func() {
		for range ended {
			c.reap()
		}
	}()
	return c
}

func (c *children) reap() {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		c.lock.Lock()
		exit, known := c.waiting[pid]
		delete(c.waiting, pid)
		c.lock.Unlock()
		if known {
			exit <- status
		}
	}
}

// command is a program to start. Its output goes where that of process 1 goes.
type command struct {
	name        string
	arguments   []string
	environment []string
	stdin       *os.File
	// A mount namespace of its own, from which mounts still spread both ways as far as they are shared.
	hasOwnMounts bool
}

type process struct {
	pid  int
	exit chan syscall.WaitStatus
}

func (c *children) start(command command) (process, error) {
	path, err := exec.LookPath(command.name)
	if err != nil {
		return process{}, err
	}
	stdin := command.stdin
	if stdin == nil {
		if stdin, err = os.Open(os.DevNull); err != nil {
			return process{}, err
		}
		defer stdin.Close()
	}
	attributes := &os.ProcAttr{
		Env:   append(os.Environ(), command.environment...),
		Files: []*os.File{stdin, os.Stdout, os.Stderr},
		Sys:   &syscall.SysProcAttr{Setpgid: true},
	}
	if command.hasOwnMounts {
		attributes.Sys.Cloneflags = syscall.CLONE_NEWNS
	}
	// Held over the start, so that the reaper cannot meet the process before it is registered.
	c.lock.Lock()
	defer c.lock.Unlock()
	started, err := os.StartProcess(path, append([]string{command.name}, command.arguments...), attributes)
	if err != nil {
		return process{}, fmt.Errorf("start %s: %w", command.name, err)
	}
	p := process{pid: started.Pid, exit: make(chan syscall.WaitStatus, 1)}
	c.waiting[p.pid] = p.exit
	return p, started.Release()
}

// run starts a program and waits for its end.
func (c *children) run(command command) error {
	p, err := c.start(command)
	if err != nil {
		return err
	}
	if status := <-p.exit; status.ExitStatus() != 0 {
		return fmt.Errorf("%s: %s", command.name, describe(status))
	}
	return nil
}

// service is a program that is started again whenever it ends.
type service struct {
	name     string
	stopping chan struct{}
	stopped  chan struct{}
}

func (c *children) keepRunning(name string, command command) *service {
	s := &service{name: name, stopping: make(chan struct{}), stopped: make(chan struct{})}
	go s.supervise(func() (process, error) { return c.start(command) })
	return s
}

func (s *service) supervise(start func() (process, error)) {
	defer close(s.stopped)
	delay := firstRestartDelay
	for {
		started := time.Now()
		p, err := start()
		if err != nil {
			log.Printf("%s: %v", s.name, err)
		} else {
			select {
			case status := <-p.exit:
				log.Printf("%s ended (%s), starting it again", s.name, describe(status))
			case <-s.stopping:
				end(p)
				return
			}
		}
		if time.Since(started) > shortestRun {
			delay = firstRestartDelay
		}
		select {
		case <-time.After(delay):
			delay = min(2*delay, lastRestartDelay)
		case <-s.stopping:
			return
		}
	}
}

// stop ends the service for good and returns once its process is gone.
func (s *service) stop() {
	close(s.stopping)
	<-s.stopped
}

func end(p process) {
	const patience = 700 * time.Millisecond
	syscall.Kill(p.pid, syscall.SIGTERM)
	select {
	case <-p.exit:
	case <-time.After(patience):
		syscall.Kill(p.pid, syscall.SIGKILL)
		<-p.exit
	}
}

func describe(status syscall.WaitStatus) string {
	if status.Signaled() {
		return "signal " + status.Signal().String()
	}
	return fmt.Sprintf("exit status %d", status.ExitStatus())
}
