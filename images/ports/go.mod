module sandbar.dev/ports

go 1.26.0

toolchain go1.26.8

require (
	golang.org/x/sys v0.40.0
	sandbar.dev/lib v0.0.0
)

require (
	github.com/vishvananda/netlink v1.3.1 // indirect
	github.com/vishvananda/netns v0.0.5 // indirect
)

replace sandbar.dev/lib => ../lib
