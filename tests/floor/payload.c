/*
 * What the benchmark's containers run: called as `true` it ends at once, called as `pause` it waits to be killed,
 * called as `touch` it uses the memory that its argument says (in KiB) and ends.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	const char *name = strrchr(argv[0], '/');
	name = name ? name + 1 : argv[0];
	if (!strcmp(name, "pause"))
		for (;;)
			pause();
	if (!strcmp(name, "touch") && argc > 1) {
		size_t size = strtoul(argv[1], NULL, 10) << 10;
		char *p = malloc(size);
		if (!p)
			return 1;
		for (size_t i = 0; i < size; i += 4096)
			((volatile char *)p)[i] = 1;
	}
	return 0;
}
