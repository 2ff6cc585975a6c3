module sandbar.dev/mount

go 1.26.0

toolchain go1.26.8

require (
	golang.org/x/sys v0.40.0
	sandbar.dev/lib v0.0.0
)

replace sandbar.dev/lib => ../lib
