/*
 * What the benchmark's containers run: called as `true` it ends at once, called as `pause` it waits to be killed,
 * called as `pilot` it waits for the end of its standard input, which comes when the benchmark is gone.
 */
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	const char *name = strrchr(argv[0], '/');
	name = name ? name + 1 : argv[0];
	if (!strcmp(name, "pause"))
		for (;;)
			pause();
	char byte;
	if (!strcmp(name, "pilot"))
		while (read(0, &byte, 1) > 0)
			;
	return 0;
}
