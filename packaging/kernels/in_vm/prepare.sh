#!/bin/sh
# In the VM, as root: makes files quick to read and the places that tests write to ready, then becomes a program.
# prepare.sh SHARE SNAPSHOT TREE PROGRESS FOLDERS -- PROGRAM...
#   SHARE     where the VM's starter mounted the host's root, read-only
#   SNAPSHOT  the copy of the project that is seen at TREE; the program starts there
#   PROGRESS  file that takes lines of progress
#   FOLDERS   further folders that tests read, one a line
set -eu
share=$1 snapshot=$2 tree=$3 progress=$4 folders=$5
shift 6

# Without a cache every look at a file asks the host: importing pytest takes six times as long.
tag=$(awk -v at="$share" '$2 == at { print $1 }' /proc/mounts)
umount "$share"
mount -t 9p -o ro,version=9p2000.L,trans=virtio,access=any,msize=524288,cache=loose "$tag" "$share"

# show FROM AT: what the host has at FROM is seen at AT.
show() {
    mkdir -p "$2"
    mount --bind "$share$1" "$2"
}

# A /tmp in memory, before the folders: they may lie in it.
mount -t tmpfs -o mode=1777 tmpfs /tmp
show /usr /usr
show "$snapshot" "$tree"
printf '%s\n' "$folders" | while IFS= read -r folder; do
    [ -z "$folder" ] || show "$folder" "$folder"
done

grep -q ' /sys/fs/cgroup cgroup2 ' /proc/mounts || mount -t cgroup2 cgroup2 /sys/fs/cgroup
echo +memory >/sys/fs/cgroup/cgroup.subtree_control
grep -q ' /sys/fs/bpf bpf ' /proc/mounts || mount -t bpf bpf /sys/fs/bpf
grep -q ' /sys/kernel/debug debugfs ' /proc/mounts || mount -t debugfs debugfs /sys/kernel/debug
grep -q ' /sys/kernel/tracing tracefs ' /proc/mounts || mount -t tracefs tracefs /sys/kernel/tracing
ip link set lo up

echo '{"at": "booted"}' >>"$progress"
cd "$tree"
exec "$@"
