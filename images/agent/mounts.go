package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"sandbar.dev/lib/mounts"
)

const exitNothingSeen = 3

// runMountCommand is how the command line, and the container runtime, speak of live mounts with the node.
func runMountCommand(arguments []string) error {
	if len(arguments) == 0 {
		return errors.New("usage: sandbar-agent mounts list|wait|watch|touch|prepare|attach")
	}
	switch arguments[0] {
	case "list":
		response, err := mounts.Ask(mounts.Request{Command: "list"})
		return printMounts(response, err)
	case "wait":
		flags := flag.NewFlagSet("wait", flag.ContinueOnError)
		timeout := flags.Duration("timeout", 10*time.Second, "how long to wait")
		ids, err := parseInterspersed(flags, arguments[1:])
		if err != nil {
			return err
		}
		response, err := mounts.Ask(mounts.Request{Command: "wait", IDs: ids, TimeoutMs: timeout.Milliseconds()})
		return printMounts(response, err)
	case "watch":
		return watch(arguments[1:])
	case "touch":
		return touchAll(os.Stdin)
	case "prepare":
		return prepare(arguments[1:])
	case "attach":
		return attach(arguments[1:])
	default:
		return fmt.Errorf("unknown command %q (known: list, wait, watch, touch, prepare, attach)", arguments[0])
	}
}

func printMounts(response mounts.Response, err error) error {
	if err != nil {
		return err
	}
	if response.Mounts == nil {
		response.Mounts = []mounts.Status{}
	}
	return json.NewEncoder(os.Stdout).Encode(response.Mounts)
}

// prepare changes the container that the runtime is about to create.
func prepare(arguments []string) error {
	return answerRuntime(arguments, func(bundle string) error {
		_, err := mounts.Ask(mounts.Request{Command: "prepare", Bundle: bundle})
		return err
	})
}

// attach runs as a hook in a container's mount namespace, when all that the runtime mounts is there and the container's
// program does not run yet. Descriptors of detached mounts can be attached in any namespace.
func attach(arguments []string) error {
	if len(arguments) != 1 {
		return errors.New("usage: sandbar-agent mounts attach BUNDLE")
	}
	response, err := mounts.Ask(mounts.Request{Command: "attach", Bundle: arguments[0]})
	if err != nil {
		return err
	}
	root, err := unix.Open(filepath.Join(arguments[0], "rootfs"), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open the container's root: %w", err)
	}
	for i, attachment := range response.Attachments {
		// What is mounted already goes on top of what comes below it.
		if attachment.Descriptor < 0 {
			if response.Attachments[i].Descriptor, err = cloneAt(root, attachment.Destination); err != nil {
				return fmt.Errorf("clone %s: %w", attachment.Destination, err)
			}
		}
	}
	for _, attachment := range response.Attachments {
		if err := attachAt(root, attachment); err != nil {
			return fmt.Errorf("mount %s: %w", attachment.Destination, err)
		}
	}
	return nil
}

func cloneAt(root int, destination string) (int, error) {
	point, err := openInRoot(root, destination)
	if err != nil {
		return -1, err
	}
	defer unix.Close(point)
	const flags = unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_RECURSIVE | unix.AT_EMPTY_PATH
	return unix.OpenTree(point, "", flags)
}

func attachAt(root int, attachment mounts.Attachment) error {
	point, err := openInRoot(root, attachment.Destination)
	if err != nil {
		return err
	}
	defer unix.Close(point)
	const exactly = unix.MOVE_MOUNT_F_EMPTY_PATH | unix.MOVE_MOUNT_T_EMPTY_PATH
	return unix.MoveMount(attachment.Descriptor, "", point, "", exactly)
}

// openInRoot finds a path as the container will, whose root is not this process's.
func openInRoot(root int, path string) (int, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	return unix.Openat2(root, path, &how)
}

// watch proves that file events arrive: it says when it watches, then whether an event came.
func watch(arguments []string) error {
	flags := flag.NewFlagSet("watch", flag.ContinueOnError)
	name := flags.String("name", "", "name of the file in the mount's folder")
	timeout := flags.Duration("timeout", 3*time.Second, "how long to watch")
	ids, err := parseInterspersed(flags, arguments)
	if err != nil {
		return err
	}
	if len(ids) != 1 {
		return errors.New("usage: sandbar-agent mounts watch ID --name NAME [--timeout 3s]")
	}
	path, err := pathOfMount(ids[0])
	if err != nil {
		return err
	}
	descriptor, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("inotify: %w", err)
	}
	if _, err := unix.InotifyAddWatch(descriptor, path, unix.IN_ALL_EVENTS&^(unix.IN_ACCESS|unix.IN_OPEN|unix.IN_CLOSE_NOWRITE)); err != nil {
		return fmt.Errorf("watch %s: %w", path, err)
	}
	// The name is looked for in a folder's events; a single file's events have none.
	if entry, err := os.Stat(path); err == nil && !entry.IsDir() {
		*name = ""
	}
	fmt.Println("watching")
	if waitForEvent(os.NewFile(uintptr(descriptor), "inotify"), *name, time.Now().Add(*timeout)) {
		fmt.Println("seen")
		return nil
	}
	fmt.Println("nothing")
	os.Exit(exitNothingSeen)
	return nil
}

func waitForEvent(events *os.File, name string, deadline time.Time) bool {
	if err := events.SetReadDeadline(deadline); err != nil {
		return false
	}
	buffer := make([]byte, 4096)
	for {
		n, err := events.Read(buffer)
		if err != nil {
			return false
		}
		for rest := buffer[:n]; len(rest) >= unix.SizeofInotifyEvent; {
			event := (*unix.InotifyEvent)(unsafe.Pointer(&rest[0]))
			end := unix.SizeofInotifyEvent + int(event.Len)
			if strings.TrimRight(string(rest[unix.SizeofInotifyEvent:end]), "\x00") == name {
				return true
			}
			rest = rest[end:]
		}
	}
}

// touchAll raises an event for every line {"id", "path"}. What cannot be touched any more is passed over: the next
// change of it comes with a line of its own.
func touchAll(lines io.Reader) error {
	paths := map[string]string{}
	scanner := bufio.NewScanner(lines)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		var change struct{ ID, Path string }
		if err := json.Unmarshal(scanner.Bytes(), &change); err != nil {
			return fmt.Errorf("%q: %w", scanner.Text(), err)
		}
		root, isKnown := paths[change.ID]
		if !isKnown {
			var err error
			if root, err = pathOfMount(change.ID); err != nil {
				continue
			}
			paths[change.ID] = root
		}
		_ = mounts.Touch(root, change.Path)
	}
	return scanner.Err()
}

func pathOfMount(id string) (string, error) {
	response, err := mounts.Ask(mounts.Request{Command: "list"})
	if err != nil {
		return "", err
	}
	for _, mount := range response.Mounts {
		if mount.ID == id {
			return mount.Path, nil
		}
	}
	return "", fmt.Errorf("there is no mount %q", id)
}

// parseInterspersed accepts flags on both sides of the arguments, and returns these.
func parseInterspersed(flags *flag.FlagSet, arguments []string) ([]string, error) {
	var found []string
	for {
		if err := flags.Parse(arguments); err != nil {
			return nil, err
		}
		if flags.NArg() == 0 {
			return found, nil
		}
		found = append(found, flags.Arg(0))
		arguments = flags.Args()[1:]
	}
}
