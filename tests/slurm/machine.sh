#!/bin/bash
# The first process of a machine that is made of namespaces: machine.sh NAME ADDRESS FOLDER [COMMAND ...]
# Gives it a name, an address on eth0 (waits for it), its own /etc/hosts and /dev/shm; starts the command; stays, to
# reap what others leave. Killing this process is a power cut.
set -eu
name=$1 address=$2 folder=$3
shift 3
hostname "$name"
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /dev/shm
mount --bind "$folder/hosts" /etc/hosts
mount --bind "$folder/nsswitch.conf" /etc/nsswitch.conf
ip link set lo up
until ip link show eth0 >/dev/null 2>&1; do sleep 0.02; done
ip address add "$address/24" dev eth0
ip link set eth0 up
touch "$folder/up-$name"
[ $# = 0 ] || "$@" &
trap : TERM INT HUP
while :; do
    sleep 1000 &
    wait $! || true
done
