#!/bin/busybox sh
# First program of the guest, in its initramfs: loads modules, lays the guest's root over the host's
# and hands over to session.sh. ./settings (written by `vm`) sets CGROUP and SHARES.
/bin/busybox --install -s /bin
export PATH=/bin

give_up() {
	echo "vm: $1"
	reboot -f
}

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
exec </dev/console >/dev/console 2>&1
. /dhow/settings

while read -r module; do
	insmod "/modules/$module" || echo "vm: cannot load $module"
done </modules/order

options=ro,trans=virtio,version=9p2000.L,msize=512000,cache=loose
mount -t 9p -o $options host /host || give_up "cannot mount the host's root"
mount -t 9p -o $options cache /cache || give_up "cannot mount the cache"
mount -t tmpfs -o mode=755,size=75% scratch /scratch

# The layers of the cache are mounts of their own: overlay takes no layer that lies inside another.
mkdir /scratch/upper /scratch/work
mount -t overlay -o "lowerdir=/cache/kernel-$KERNEL/layer:/cache/tools/layer:/host,upperdir=/scratch/upper,workdir=/scratch/work" \
	root /new || give_up "cannot lay an overlay over the host's root"

mount -t proc -o nosuid,nodev,noexec proc /new/proc
mount -t sysfs -o nosuid,nodev,noexec sysfs /new/sys
mount -t securityfs -o nosuid,nodev,noexec securityfs /new/sys/kernel/security
mount -t bpf -o nosuid,nodev,noexec,mode=700 bpf /new/sys/fs/bpf
mount -t devtmpfs -o nosuid dev /new/dev
mkdir -p /new/dev/pts /new/dev/shm /new/dev/mqueue
mount -t devpts -o nosuid,noexec,gid=5,mode=620,ptmxmode=666 devpts /new/dev/pts
mount -t tmpfs -o nosuid,nodev shm /new/dev/shm
mount -t mqueue -o nosuid,nodev,noexec mqueue /new/dev/mqueue
ln -sf /proc/self/fd /new/dev/fd
ln -sf /proc/self/fd/0 /new/dev/stdin
ln -sf /proc/self/fd/1 /new/dev/stdout
ln -sf /proc/self/fd/2 /new/dev/stderr
mount -t tmpfs -o nosuid,nodev,mode=755 run /new/run
mount -t tmpfs -o mode=1777 tmp /new/tmp
mount -t tmpfs -o mode=1777 tmp /new/var/tmp
mkdir -p /new/run/lock

# Directories of the host that the mounts just made would hide.
number=0
while read -r directory; do
	number=$((number + 1))
	mkdir -p "/scratch/$number/upper" "/scratch/$number/work" "/new$directory"
	ln -s "/host$directory" "/scratch/$number/lower"
	mount -t overlay -o "lowerdir=/scratch/$number/lower,upperdir=/scratch/$number/upper,workdir=/scratch/$number/work" \
		shared "/new$directory" || give_up "cannot share $directory"
done </dhow/shares

case $CGROUP in
v2)
	mount -t cgroup2 -o nosuid,nodev,noexec,nsdelegate,memory_recursiveprot cgroup2 /new/sys/fs/cgroup
	;;
v1)
	# Each controller a hierarchy of its own, and systemd's named one without any.
	mount -t tmpfs -o nosuid,nodev,noexec,mode=755 cgroup /new/sys/fs/cgroup
	while read -r controller _ _ enabled; do
		[ "$enabled" = 1 ] || continue
		mkdir "/new/sys/fs/cgroup/$controller"
		mount -t cgroup -o "nosuid,nodev,noexec,$controller" cgroup "/new/sys/fs/cgroup/$controller" ||
			rmdir "/new/sys/fs/cgroup/$controller"
	done </proc/cgroups
	mkdir /new/sys/fs/cgroup/systemd
	mount -t cgroup -o nosuid,nodev,noexec,none,name=systemd cgroup /new/sys/fs/cgroup/systemd
	mount -o remount,ro,nosuid,nodev,noexec,mode=755 cgroup /new/sys/fs/cgroup
	;;
esac

mkdir /new/run/dhow-vm
cp /dhow/* /bin/busybox /new/run/dhow-vm/
umount /sys /proc
exec switch_root /new /run/dhow-vm/busybox sh /run/dhow-vm/session.sh
