#!/bin/sh
# What containerd runs in place of crun: a container with a live mount is prepared before it is created. Everything else
# costs one start of this shell.
case " $* " in
*" create "*)
    previous=
    for argument; do
        if [ "$previous" = --bundle ] && grep -q '"/var/lib/sandbar/mounts/' "$argument/config.json"; then
            sandbar-agent mounts prepare "$@" || exit 1
        fi
        previous=$argument
    done
    ;;
esac
exec crun "$@"
