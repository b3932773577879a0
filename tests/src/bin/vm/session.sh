# PID 1 of the guest once its root is in place (busybox sh): prepares what a system's manager
# prepares, says so by a line on the first port, runs ./command and reports its exit status at the
# end of both output streams.
cd /run/dhow-vm || exit
. ./settings
busybox=/run/dhow-vm/busybox

$busybox ip link set lo up
$busybox hostname dhow-vm
echo "127.0.0.1 localhost dhow-vm" >/etc/hosts
# What systemd does on every machine; the cases of mount propagation count on it.
$busybox mount --make-rshared /

# The kernel allows PID 1 no more than 4096 files; service managers raise that.
ulimit -H -n 1048576

# Device nodes exist only once their modules do; all others the kernel loads when they are asked for.
/sbin/modprobe -a loop tun

if [ "$CGROUP" = v2 ]; then
	# As on a real machine, nobody's caller stays in the root; only kernel threads do.
	$busybox mkdir /sys/fs/cgroup/session
	echo $$ >/sys/fs/cgroup/session/cgroup.procs
	for controller in $($busybox cat /sys/fs/cgroup/cgroup.controllers); do
		echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control
	done
fi

# The first number is that of the device among all virtio devices.
for port in /dev/vport*; do
	case $port in
	*p1) port_1=$port ;;
	*p2) port_2=$port ;;
	esac
done
printf '%s\n' "$MARKER" >"$port_1"
$busybox mkfifo output errors
# A port can be open only once and is no pipe: the command gets pipes, as from any caller.
$busybox cat output >"$port_1" &
output=$!
$busybox cat errors >"$port_2" &
errors=$!
$busybox setsid /bin/sh ./command </dev/null >output 2>errors
status=$?

# Whatever the command left behind may hold the pipes open.
(
	$busybox sleep 3
	kill $output $errors
) 2>/dev/null &
wait $output
wait $errors
printf '%s %d\n' "$MARKER" $status >"$port_2"
printf '%s %d\n' "$MARKER" $status >"$port_1"
# The host ends the machine; this is for when it does not.
$busybox sleep 10
$busybox reboot -f
