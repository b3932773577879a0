/*
 * The floor of the runtime benchmark: makes the container of Docker's default spec with the system calls that the
 * kernel demands for it and nothing else, and waits for it. It parses nothing, records nothing and checks nothing
 * but its own calls' results; whatever a runtime takes beyond it is the runtime's own.
 *
 *   floor VIEW CGROUP CONTROLLERS ROOTFS FILTER HOSTNAME PROGRAM
 *
 * VIEW         v1: one hierarchy per controller at /sys/fs/cgroup/NAME; v2: one tree at /sys/fs/cgroup
 * CGROUP       path of the cgroup below a hierarchy; its parent exists, itself it is made and removed here
 * CONTROLLERS  v1: every mounted hierarchy, v2: the controllers that limits are set by; separated by colons
 * FILTER       file of struct sock_filter
 *
 * Compiled with -DNOFILE=N, the limit of open files in the same spec.
 *
 * What may wait runs beside what must wait: on v1 the first write to cgroup.procs costs an RCU grace period, so the
 * child makes its namespaces and mounts meanwhile, and only the cgroup namespace waits for the parent.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef CLONE_INTO_CGROUP
#define CLONE_INTO_CGROUP 0x200000000ULL
#endif

#define MUST(call)                                                                                 \
	({                                                                                         \
		long must_ = (long)(call);                                                         \
		if (must_ < 0) {                                                                   \
			dprintf(2, "floor: line %d: %s: %s\n", __LINE__, #call, strerror(errno));  \
			_exit(125);                                                                \
		}                                                                                  \
		must_;                                                                             \
	})

/* Limits as in the config.json that the benchmark writes: see tests/src/bench/bundle.rs. */
static const struct { const char *controller, *file, *value; } LIMITS_V1[] = {
	{ "memory", "memory.limit_in_bytes", "536870912" },
	{ "pids", "pids.max", "1024" },
	{ "cpu", "cpu.shares", "1024" },
	{ "cpu", "cpu.cfs_period_us", "100000" },
	{ "cpu", "cpu.cfs_quota_us", "200000" },
}, LIMITS_V2[] = {
	{ "memory", "memory.max", "536870912" },
	{ "pids", "pids.max", "1024" },
	{ "cpu", "cpu.weight", "39" },
	{ "cpu", "cpu.max", "200000 100000" },
};

/* CAP_CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE NET_RAW SYS_CHROOT MKNOD AUDIT_WRITE SETFCAP */
#define CAPS 0xa80425fbULL

static const struct { const char *name; unsigned major, minor; } NODES[] = {
	{ "dev/null", 1, 3 },	{ "dev/zero", 1, 5 },	 { "dev/full", 1, 7 },
	{ "dev/random", 1, 8 }, { "dev/urandom", 1, 9 }, { "dev/tty", 5, 0 },
};

static const char *const MASKED[] = {
	"proc/asound", "proc/acpi", "proc/kcore", "proc/keys", "proc/latency_stats", "proc/timer_list", "proc/timer_stats",
	"proc/sched_debug", "proc/scsi", "sys/firmware", "sys/devices/virtual/powercap",
};

static const char *const READONLY[] = { "proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger" };

/* Read before clone, so that the child finds it in its copy of the memory. */
static struct sock_filter filter[BPF_MAXINSNS];
static size_t filter_len;

static void write_at(int dir, const char *file, const char *value)
{
	int fd = MUST(openat(dir, file, O_WRONLY | O_CLOEXEC));
	MUST(write(fd, value, strlen(value)));
	close(fd);
}

static void copy_between(int from, int to, const char *file)
{
	char buf[256];
	int in = MUST(openat(from, file, O_RDONLY | O_CLOEXEC));
	ssize_t n = MUST(read(in, buf, sizeof buf - 1));
	close(in);
	buf[n] = 0;
	write_at(to, file, buf);
}

/* The device program of v2: the same list as devices_v1 writes, deny by default. */
static int device_program(void)
{
#define INSN(c, d, s, o, i) ((struct bpf_insn){ .code = (c), .dst_reg = (d), .src_reg = (s), .off = (o), .imm = (i) })
#define LOAD(reg, offset) INSN(BPF_LDX | BPF_MEM | BPF_W, reg, 1, offset, 0)
#define SKIP_UNLESS(reg, value, insns) INSN(BPF_JMP | BPF_JNE | BPF_K, reg, 0, insns, value)
#define SET(reg, value) INSN(BPF_ALU64 | BPF_MOV | BPF_K, reg, 0, 0, value)
#define LEAVE INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0)
#define ALLOW(major, minor) SKIP_UNLESS(4, major, 3), SKIP_UNLESS(5, minor, 2), SET(0, 1), LEAVE
	static const struct bpf_insn insns[] = {
		LOAD(2, 0), LOAD(4, 4), LOAD(5, 8),
		INSN(BPF_ALU64 | BPF_MOV | BPF_X, 3, 2, 0, 0),
		INSN(BPF_ALU64 | BPF_RSH | BPF_K, 3, 0, 0, 16),		/* access */
		INSN(BPF_ALU64 | BPF_AND | BPF_K, 2, 0, 0, 0xffff),	/* type */
		SKIP_UNLESS(3, BPF_DEVCG_ACC_MKNOD, 2), SET(0, 1), LEAVE,
		INSN(BPF_JMP | BPF_JEQ | BPF_K, 2, 0, 2, BPF_DEVCG_DEV_CHAR), SET(0, 0), LEAVE,
		ALLOW(1, 3), ALLOW(1, 5), ALLOW(1, 7), ALLOW(1, 8), ALLOW(1, 9), ALLOW(5, 0), ALLOW(5, 1), ALLOW(5, 2),
		SKIP_UNLESS(4, 136, 2), SET(0, 1), LEAVE,
		SET(0, 0), LEAVE,
	};
	union bpf_attr attr = {
		.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE,
		.insns = (uintptr_t)insns,
		.insn_cnt = sizeof insns / sizeof *insns,
		.license = (uintptr_t)"Apache-2.0",
	};
	return MUST(syscall(SYS_bpf, BPF_PROG_LOAD, &attr, sizeof attr));
}

static void devices_v1(int dir)
{
	static const char *const rules[] = {
		"c *:* m", "b *:* m", "c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm", "c 1:9 rwm", "c 5:0 rwm", "c 5:1 rwm",
		"c 5:2 rwm", "c 136:* rwm",
	};
	write_at(dir, "devices.deny", "a");
	int fd = MUST(openat(dir, "devices.allow", O_WRONLY | O_CLOEXEC));
	for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
		MUST(write(fd, rules[i], strlen(rules[i])));
	close(fd);
}

static void limits(int dir, const char *controller, int v2)
{
#define APPLY(table)                                                                               \
	for (size_t i = 0; i < sizeof table / sizeof *table; i++)                                  \
		if (!strcmp(table[i].controller, controller))                                      \
			write_at(dir, table[i].file, table[i].value)
	if (v2) {
		APPLY(LIMITS_V2);
	} else {
		APPLY(LIMITS_V1);
	}
}

/* Runs in the container's first process, up to its exec. */
static void container(const int gate[2], int v2, char *controllers, const char *rootfs, const char *hostname, const char *program)
{
	close(gate[1]);
	MUST(unshare(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET));
	MUST(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
	MUST(mount(rootfs, rootfs, NULL, MS_BIND | MS_REC, NULL));
	MUST(chdir(rootfs));

	const unsigned long strict = MS_NOSUID | MS_NODEV | MS_NOEXEC;
	umask(0);
	MUST(mount("proc", "proc", "proc", strict, NULL));
	MUST(mount("tmpfs", "dev", "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k"));
	MUST(mkdir("dev/pts", 0755));
	MUST(mkdir("dev/mqueue", 0755));
	MUST(mkdir("dev/shm", 0755));
	MUST(mount("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5"));
	MUST(mount("sysfs", "sys", "sysfs", strict | MS_RDONLY, NULL));
	MUST(mount("mqueue", "dev/mqueue", "mqueue", strict, NULL));
	MUST(mount("shm", "dev/shm", "tmpfs", strict, "mode=1777,size=65536k"));
	for (size_t i = 0; i < sizeof NODES / sizeof *NODES; i++)
		MUST(mknod(NODES[i].name, S_IFCHR | 0666, makedev(NODES[i].major, NODES[i].minor)));
	MUST(symlink("/proc/self/fd", "dev/fd"));
	MUST(symlink("/proc/self/fd/0", "dev/stdin"));
	MUST(symlink("/proc/self/fd/1", "dev/stdout"));
	MUST(symlink("/proc/self/fd/2", "dev/stderr"));
	MUST(symlink("pts/ptmx", "dev/ptmx"));
	for (size_t i = 0; i < sizeof MASKED / sizeof *MASKED; i++)
		if (mount("dev/null", MASKED[i], NULL, MS_BIND, NULL) < 0 && errno == ENOTDIR)
			MUST(mount("tmpfs", MASKED[i], "tmpfs", MS_RDONLY, "size=0k"));
	for (size_t i = 0; i < sizeof READONLY / sizeof *READONLY; i++) {
		if (mount(READONLY[i], READONLY[i], NULL, MS_BIND | MS_REC, NULL) < 0)
			continue;
		MUST(mount(NULL, READONLY[i], NULL, strict | MS_BIND | MS_REMOUNT | MS_RDONLY, NULL));
	}
	MUST(sethostname(hostname, strlen(hostname)));

	/* The parent writes a byte when this process is in its cgroups; end of file means that the parent failed. */
	char byte;
	if (MUST(read(gate[0], &byte, 1)) != 1)
		_exit(125);
	MUST(unshare(CLONE_NEWCGROUP));
	if (v2) {
		MUST(mount("cgroup", "sys/fs/cgroup", "cgroup2", strict | MS_RDONLY, NULL));
	} else {
		MUST(mount("tmpfs", "sys/fs/cgroup", "tmpfs", strict, "mode=755"));
		for (char *name = strtok(controllers, ":"); name; name = strtok(NULL, ":")) {
			char dir[64] = "sys/fs/cgroup/", *data = name;
			strcat(dir, name);
			MUST(mkdir(dir, 0755));
			if (!strcmp(name, "systemd"))
				data = "name=systemd";
			MUST(mount("cgroup", dir, "cgroup", strict | MS_RDONLY, data));
		}
		MUST(mount(NULL, "sys/fs/cgroup", NULL, strict | MS_REMOUNT | MS_BIND | MS_RDONLY, NULL));
	}

	MUST(syscall(SYS_pivot_root, ".", "."));
	MUST(umount2(".", MNT_DETACH));
	MUST(chdir("/"));

	MUST(setsid());
	struct rlimit nofile = { NOFILE, NOFILE };
	MUST(setrlimit(RLIMIT_NOFILE, &nofile));
	struct sock_fprog prog = { filter_len, filter };
	if (filter_len)
		MUST(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog));
	MUST(syscall(SYS_setgroups, 0, NULL));
	for (int cap = 0; cap <= CAP_LAST_CAP; cap++)
		if (!(CAPS >> cap & 1))
			MUST(prctl(PR_CAPBSET_DROP, cap, 0, 0, 0));
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2] = { { (uint32_t)CAPS, (uint32_t)CAPS, 0 }, { 0, 0, 0 } };
	MUST(syscall(SYS_capset, &header, data));
	umask(022);
	MUST(syscall(SYS_close_range, 3U, ~0U, 0));

	char env[80] = "HOSTNAME=";
	strncat(env, hostname, 64);
	char *argv[] = { (char *)program, NULL };
	char *envp[] = { "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", env, NULL };
	MUST(execve(program, argv, envp));
}

/* Forks by clone3, into the cgroup if `cgroup` is a directory of v2's tree. */
static pid_t spawn(int cgroup)
{
	struct clone_args args = { .flags = CLONE_NEWPID, .exit_signal = SIGCHLD };
	if (cgroup >= 0) {
		args.flags |= CLONE_INTO_CGROUP;
		args.cgroup = cgroup;
	}
	return MUST(syscall(SYS_clone3, &args, sizeof args));
}

static void remove_cgroup(const char *path)
{
	while (rmdir(path) < 0)
		if (errno != EBUSY)
			MUST(-1);
}

int main(int argc, char **argv)
{
	if (argc != 8) {
		dprintf(2, "usage: floor v1|v2 CGROUP CONTROLLERS ROOTFS FILTER HOSTNAME PROGRAM\n");
		return 125;
	}
	const int v2 = !strcmp(argv[1], "v2");
	const char *cgroup = argv[2];
	char path[4096], names[256], pid_text[16];
	int gate[2], status;

	int fd = MUST(open(argv[5], O_RDONLY | O_CLOEXEC));
	filter_len = MUST(read(fd, filter, sizeof filter)) / sizeof *filter;
	close(fd);
	MUST(pipe2(gate, O_CLOEXEC));
	strncpy(names, argv[3], sizeof names - 1);

	pid_t pid;
	if (v2) {
		snprintf(path, sizeof path, "/sys/fs/cgroup/%s", cgroup);
		MUST(mkdir(path, 0755));
		int dir = MUST(open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
		pid = spawn(dir);
		if (!pid)
			container(gate, v2, names, argv[4], argv[6], argv[7]);
		for (char *name = strtok(names, ":"); name; name = strtok(NULL, ":"))
			limits(dir, name, v2);
		union bpf_attr attach = {
			.target_fd = dir,
			.attach_bpf_fd = device_program(),
			.attach_type = BPF_CGROUP_DEVICE,
			.attach_flags = BPF_F_ALLOW_MULTI,
		};
		MUST(syscall(SYS_bpf, BPF_PROG_ATTACH, &attach, sizeof attach));
	} else {
		pid = spawn(-1);
		if (!pid)
			container(gate, v2, names, argv[4], argv[6], argv[7]);
		snprintf(pid_text, sizeof pid_text, "%d", pid);
		for (char *name = strtok(names, ":"); name; name = strtok(NULL, ":")) {
			snprintf(path, sizeof path, "/sys/fs/cgroup/%s/%s", name, cgroup);
			MUST(mkdir(path, 0755));
			int dir = MUST(open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
			if (!strcmp(name, "cpuset")) {
				int parent = MUST(openat(dir, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
				copy_between(parent, dir, "cpuset.cpus");
				copy_between(parent, dir, "cpuset.mems");
				close(parent);
			} else if (!strcmp(name, "devices")) {
				devices_v1(dir);
			} else {
				limits(dir, name, v2);
			}
			write_at(dir, "cgroup.procs", pid_text);
			close(dir);
		}
	}
	MUST(write(gate[1], "", 1));

	MUST(waitpid(pid, &status, 0));
	if (v2) {
		remove_cgroup(path);
	} else {
		strncpy(names, argv[3], sizeof names - 1);
		for (char *name = strtok(names, ":"); name; name = strtok(NULL, ":")) {
			snprintf(path, sizeof path, "/sys/fs/cgroup/%s/%s", name, cgroup);
			remove_cgroup(path);
		}
	}
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
