#!/bin/sh
# What containerd runs in place of crun: before it is created, a container with a live mount is prepared, and one of a pod
# waits for the pod's network policies where there are any. Everything else costs one start of this shell.
case " $* " in
*" create "*)
    previous=
    for argument; do
        if [ "$previous" = --bundle ]; then
            if grep -q '"/var/lib/sandbar/mounts/' "$argument/config.json"; then
                sandbar-agent mounts prepare "$@" || exit 1
            fi
            if [ -S /run/sandbar/network-policies ] &&
                grep -q '"io.kubernetes.cri.container-type":"container"' "$argument/config.json"; then
                sandbar-agent await-policies "$@" || exit 1
            fi
        fi
        previous=$argument
    done
    ;;
esac
exec crun "$@"
