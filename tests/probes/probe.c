/* What a container may do, tried: `probe calls` every system call number, `probe bits` compared arguments with high bits
 * set, `probe writable DIR...` every file below that opens for writing. One line of output for each result. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define NONE 9999

/* Makes the call in a child: its errno, 0 for success, NONE if the child did not come back from it. */
static int try(long nr, long a, long b, long c)
{
	static volatile int *result;
	if (!result)
		result = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	*result = NONE;
	pid_t child = fork();
	if (child == 0) {
		pid_t self = getpid();
		alarm(1);
		long r = syscall(nr, a, b, c, -1L, -1L, -1L);
		int e = r == -1 ? errno : 0;
		if (getpid() == self)
			*result = e;
		_exit(0);
	}
	int status;
	while (waitpid(child, &status, __WALL) == -1 && errno == EINTR)
		;
	while (waitpid(-1, &status, __WALL | WNOHANG) > 0)
		;
	return *result;
}

static void walk(const char *dir)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	if (!d)
		return;
	while ((e = readdir(d))) {
		char path[4096];
		struct stat st;
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		/* Each process's own files are its own. */
		if (!strcmp(dir, "/proc") && e->d_name[0] >= '0' && e->d_name[0] <= '9')
			continue;
		snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
		if (lstat(path, &st))
			continue;
		if (S_ISDIR(st.st_mode))
			walk(path);
		/* CAP_DAC_OVERRIDE opens anything; a file without a write bit has nothing that takes a write. */
		if (!S_ISREG(st.st_mode) || !(st.st_mode & 0222))
			continue;
		int fd = open(path, O_WRONLY | O_NONBLOCK | O_NOFOLLOW);
		if (fd >= 0) {
			puts(path);
			close(fd);
		}
	}
	closedir(d);
}

int main(int argc, char **argv)
{
	setvbuf(stdout, 0, _IOLBF, 0);
	if (argc > 1 && !strcmp(argv[1], "calls")) {
		for (long nr = 0; nr < 1024; nr++)
			printf("%ld %d\n", nr, try(nr, -1, -1, -1));
#ifdef __x86_64__
		for (long nr = 0; nr < 560; nr++)
			printf("x32 %ld %d\n", nr, try(nr | 0x40000000, -1, -1, -1));
#endif
	} else if (argc > 1 && !strcmp(argv[1], "bits")) {
		for (long high = 0; high <= 1; high++) {
			long h = high << 32, hh = high << 63;
			printf("vsock %d\n", try(SYS_socket, h | 40, SOCK_STREAM, 0));
			printf("vsock %d\n", try(SYS_socket, hh | 40, SOCK_STREAM, 0));
			printf("alg %d\n", try(SYS_socket, h | 38, SOCK_SEQPACKET, 0));
			printf("unix %d\n", try(SYS_socket, 1, SOCK_STREAM, 0));
			printf("norandom %d\n", try(SYS_personality, h | 0x0040000, 0, 0));
			printf("norandom %d\n", try(SYS_personality, hh | 0x0040000, 0, 0));
			printf("newuser %d\n", try(SYS_clone, h | 0x10000000 | SIGCHLD, 0, 0));
			printf("newns %d\n", try(SYS_clone, hh | 0x00020000 | SIGCHLD, 0, 0));
			printf("plain %d\n", try(SYS_clone, SIGCHLD, 0, 0));
		}
	} else if (argc > 1 && !strcmp(argv[1], "writable")) {
		for (int i = 2; i < argc; i++)
			walk(argv[i]);
	} else {
		return 2;
	}
	return 0;
}
