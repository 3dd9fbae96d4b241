#!/bin/sh
# Lays out the running system's root: mount-root DEVICE USR TARGET
#
# ROOT (ext4) at TARGET, the image's /usr below it, and /etc as an overlay: defaults of the image underneath,
# the machine's own files (ROOT/etc) on top. The initramfs and kiln-ignition both use this one script, so a file
# written during the first boot lies where every later boot looks for it. Needs only mount, mkdir and ln.
set -eu
device=$1 usr=$2 target=$3

mkdir -p "$target"
mount -t ext4 -o errors=remount-ro "$device" "$target"
cd "$target"
mkdir -p usr etc var proc sys dev run boot home mnt opt srv .etc-work
mkdir -p -m 0700 root
mkdir -p -m 1777 tmp
for link in bin sbin lib lib64; do
  [ -L "$link" ] || ln -s "usr/$link" "$link"
done
mount --bind "$usr" usr
mount -t overlay -o "lowerdir=$target/usr/share/factory/etc,upperdir=$target/etc,workdir=$target/.etc-work" overlay etc
