#!/bin/sh
# The initramfs: from the kernel's start to systemd. Everything is busybox but dmsetup.
#
#   network boot (kiln.usr.url=)  fetch the image, run kiln-ignition from it, then go on as a disk boot
#   disk boot    (kiln.slot=)     /usr from USR-<slot> through dm-verity, ROOT, /etc overlay, switch_root
#
# Every step says so on the console (MARK:<stage>). Errors end in `die`: the reason is the last line, and the machine
# reboots, so that systemd-boot's counter can fall back to the other slot. docs/reference/seams.md has the arguments.
export PATH=/bin:/usr/sbin:/usr/bin DM_DISABLE_UDEV=1 HOME=/

mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
ln -s /proc/self/fd /dev/fd # bash scripts such as clevis have no other way to <(...)
mount -t tmpfs -o mode=0755,nosuid,nodev run /run
exec </dev/console >/dev/console 2>&1

uptime() { cut -d' ' -f1 /proc/uptime; }
mark() { echo "MARK:$1 uptime=$(uptime) status=$2${3:+ $3}"; }

# report STAGE STATUS [MESSAGE]: tells kiln-boot, if we know it and can reach it; never fails, never waits long.
report() {
  [ -n "$arg_boot" ] && [ -n "$arg_machine" ] || return 0
  body="{\"stage\":\"$1\",\"status\":\"$2\",\"uptimeSeconds\":$(uptime),\"bootId\":\"$(cat /proc/sys/kernel/random/boot_id)\"${3:+,\"message\":\"$3\"}}"
  timeout 5 wget -q -O /dev/null --header 'Content-Type: application/json' --post-data "$body" \
    "$arg_boot/v1/machines/$arg_machine/report" 2>/dev/null || true
}

# die STAGE SECONDS REASON: report, print the reason as the last line, reboot after a while.
die() {
  report "$1" failed "$3"
  for port in /sys/class/virtio-ports/*; do
    # In the background: the port takes nothing while nobody listens on the host's side.
    [ "$(cat "$port/name" 2>/dev/null)" = kiln.report ] && { echo "$1: $3" >"/dev/${port##*/}" & }
  done
  mark "$1" failed
  echo "kiln: $1 failed: $3; rebooting in $2 s"
  sleep "$2"
  sync
  echo b >/proc/sysrq-trigger
  sleep 60
}

arg_ip= arg_mac= arg_boot= arg_machine= arg_url= arg_size= arg_hash= arg_offset= arg_slot= arg_platform=metal arg_reinstall=
for word in $(cat /proc/cmdline); do
  case $word in
    ip=*) arg_ip=${word#ip=} ;;
    BOOTIF=*) arg_mac=$(echo "${word#BOOTIF=??-}" | tr 'A-F-' 'a-f:') ;;
    kiln.boot=*) arg_boot=${word#kiln.boot=} ;;
    kiln.machine=*) arg_machine=${word#kiln.machine=} ;;
    kiln.usr.url=*) arg_url=${word#kiln.usr.url=} ;;
    kiln.usr.size=*) arg_size=${word#kiln.usr.size=} ;;
    kiln.usr.hash=*) arg_hash=${word#kiln.usr.hash=} ;;
    kiln.usr.offset=*) arg_offset=${word#kiln.usr.offset=} ;;
    kiln.slot=*) arg_slot=${word#kiln.slot=} ;;
    kiln.reinstall=1) arg_reinstall=1 ;;
    ignition.platform.id=*) arg_platform=${word#ignition.platform.id=} ;;
  esac
done

# Drivers for the hardware that is here (a bus may only appear once its controller's driver is loaded), then the rest.
load_drivers() {
  for round in 1 2 3; do
    cat /sys/bus/*/devices/*/modalias 2>/dev/null | sort -u | xargs modprobe -a -q 2>/dev/null
  done
  modprobe -a loop dm-verity erofs overlay softdog
}

# partition NAME: waits up to ten seconds for the GPT partition of that name, prints its device.
partition() {
  for try in $(seq 100); do
    for event in $(grep -lx "PARTNAME=$1" /sys/class/block/*/uevent 2>/dev/null); do
      echo "/dev/$(sed -n 's/^DEVNAME=//p' "$event")"
      return 0
    done
    [ "${2:-wait}" = now ] && return 1
    sleep 0.1
  done
  return 1
}

# verity NAME DEVICE OPTIONS: the image on DEVICE, checked against kiln.usr.hash, as /dev/mapper/NAME. The tree follows
# the data, its superblock fills one block; salt and block sizes are fixed by the image format.
verity() {
  blocks=$((arg_offset / 4096))
  dmsetup create "$1" --readonly --table \
    "0 $((blocks * 8)) verity 1 $2 $2 4096 4096 $blocks $((blocks + 1)) sha256 $arg_hash - $3"
}

# enter_usr: makes /agent, a root with nothing of its own but the image's /usr, for programs of the image.
enter_usr() {
  mkdir -p /agent/usr /agent/dev /agent/proc /agent/sys /agent/run /agent/tmp /agent/sysroot
  for link in bin sbin lib lib64; do ln -sfn "usr/$link" "/agent/$link"; done
  ln -sfn usr/share/factory/etc /agent/etc
  mount --bind /sysusr /agent/usr
  for dir in dev proc sys run; do mount -o rbind "/$dir" "/agent/$dir"; done
}

leave_usr() {
  for point in $(cut -d' ' -f2 /proc/mounts | grep '^/agent/' | tac); do umount "$point" || umount -l "$point"; done
  umount /sysusr
}

# load_from MODPROBE: the program by which the kernel itself loads what it lacks (file systems, RAID levels, ciphers). While
# the agent runs that is the image's, since the initramfs has few modules.
load_from() { echo "$1" >/proc/sys/kernel/modprobe; }

# NIC 0 as the boot ROM had it: ip=ADDRESS::GATEWAY:MASK::INTERFACE:off:DNS, the NIC found by its MAC if one is given.
configure_network() {
  address=$(echo "$arg_ip" | cut -d: -f1) gateway=$(echo "$arg_ip" | cut -d: -f3)
  netmask=$(echo "$arg_ip" | cut -d: -f4) nic=$(echo "$arg_ip" | cut -d: -f6)
  [ -n "$address" ] && [ -n "$netmask" ] || die fetch 30 "no address in kernel argument ip=$arg_ip"
  for try in $(seq 50); do
    for found in /sys/class/net/*; do
      [ -n "$arg_mac" ] && [ "$(cat "$found/address")" = "$arg_mac" ] && nic=${found##*/}
    done
    [ -n "$nic" ] && [ -e "/sys/class/net/$nic" ] && break
    sleep 0.1
  done
  ifconfig "${nic:=eth0}" "$address" netmask "$netmask" up || die fetch 30 "cannot configure network card $nic"
  [ -z "$gateway" ] || route add default gw "$gateway" "$nic" || true
}

# Fetches the image into memory; a broken transfer goes on where it stopped, ten times at most.
fetch_image() {
  mkdir -p /run/image
  mount -t tmpfs -o "size=$((arg_size + 1048576)),mode=0755" image /run/image || die fetch 30 "no memory for the image"
  have=0
  for try in 1 2 3 4 5 6 7 8 9 10; do
    timeout 180 wget -q -c -O /run/image/usr.img "$arg_url"
    have=$(stat -c %s /run/image/usr.img 2>/dev/null || echo 0)
    [ "$have" -eq "$arg_size" ] && return 0
    [ "$have" -gt "$arg_size" ] && rm /run/image/usr.img
    echo "kiln: image: $have of $arg_size bytes after try $try"
    sleep "$try"
  done
  die fetch 30 "image incomplete: $have of $arg_size bytes from $arg_url"
}

refuse_installed() {
  [ -z "$arg_reinstall" ] && root=$(partition ROOT now) || return 0
  mkdir -p /probe
  mount -t ext4 -o ro "$root" /probe 2>/dev/null || return 0
  [ ! -e /probe/var/lib/kiln/installed ] || die disks 30 "this disk is installed; set the machine to reinstall to lose it"
  umount /probe
}

# A clock that stands in the past gets the image's time, before the agent judges whether anything has expired.
raise_clock() {
  floor=$(stat -c %Y /sysusr/lib/clock-epoch) || return 0
  [ "$(busybox date +%s)" -ge "$floor" ] || busybox date -s "@$floor" >/dev/null
}

network_install() {
  configure_network
  refuse_installed
  mark fetch running
  report fetch running
  fetch_image
  losetup -r /dev/loop0 /run/image/usr.img && verity image /dev/loop0 '' &&
    mount -t erofs -o ro /dev/mapper/image /sysusr || die fetch 30 "the image does not match its root hash"
  mark fetch done
  report fetch done
  raise_clock
  enter_usr
  modprobe=$(cat /proc/sys/kernel/modprobe)
  printf '#!/bin/sh\nexec chroot /agent /usr/sbin/modprobe "$@"\n' >/run/modprobe
  chmod 0755 /run/modprobe
  load_from /run/modprobe
  chroot /agent /usr/bin/kiln-ignition --platform "$arg_platform" --stage all --root /sysroot \
    --config-cache /run/kiln/ignition.json --disk auto --image /run/image/usr.img --boot-url "$arg_boot"
  code=$?
  load_from "$modprobe"
  # 1: the agent has said why on its last line; the machine waits here for someone to read it.
  [ "$code" -ne 1 ] || while :; do sleep 3600; done
  # Anything else: it was killed or could not even start, as with an image that was damaged on its way into memory.
  [ "$code" -eq 0 ] || die image 30 "kiln-ignition did not run to its end (exit $code); the image may be damaged"
  leave_usr
  dmsetup remove image
  losetup -d /dev/loop0
  umount /run/image
  [ ! -e /run/kiln/restart ] || restart
}

# The install is complete, and the disk's boot entry has other arguments than this kernel.
restart() {
  echo "kiln: restarting, for the kernel arguments of the config"
  sync
  echo b >/proc/sysrq-trigger
  sleep 60
}

# Boots what is on the disk: disk_boot SLOT
disk_boot() {
  usr=$(partition "USR-$(echo "$1" | tr ab AB)") || die switch-root 5 "no partition for slot $1"
  root=$(partition ROOT) || die switch-root 5 "no ROOT partition"
  verity usr "$usr" '1 panic_on_corruption' && mount -t erofs -o ro /dev/mapper/usr /sysusr ||
    die switch-root 5 "slot $1 does not match its root hash"
  if [ -z "$arg_url" ]; then
    enter_usr
    chroot /agent /usr/sbin/e2fsck -p "$root"
    [ $? -lt 4 ] || die switch-root 5 "ROOT has errors that need an operator"
    for dir in usr dev proc sys run; do umount "/agent/$dir"; done
  fi
  sh /mount-root.sh "$root" /sysusr /sysroot || die switch-root 5 "cannot mount ROOT"
  umount /sysusr
  [ -e /sysroot/var/lib/kiln/installed ] || abandon_install
}

# An installation that never finished: without its boot loader the firmware turns to the network again.
abandon_install() {
  modprobe -a vfat nls_cp437 nls_ascii
  mkdir -p /probe
  mount -t vfat "$(partition EFI now)" /probe && mv /probe/EFI/BOOT/BOOTX64.EFI /probe/EFI/BOOT/unfinished.efi
  umount /probe
  die switch-root 5 "the installation did not finish; the boot loader is disabled so that it can be repeated"
}

mkdir -p /sysusr /sysroot
mark kernel done
load_drivers
if [ -n "$arg_url" ]; then
  network_install
  arg_slot=a
fi
disk_boot "$arg_slot"
mark switch-root done
for dir in dev proc sys run; do mount --move "/$dir" "/sysroot/$dir"; done
exec switch_root /sysroot /usr/lib/systemd/systemd
