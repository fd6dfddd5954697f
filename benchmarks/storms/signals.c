/* SPDX-License-Identifier: Apache-2.0 */
/* Sends a child that ignores it the signal HUP, so many times. */
#include "storm.h"

int main(int argc, char **argv)
{
	int count;
	pid_t child;

	if (argc != 2) {
		fprintf(stderr, "usage: %s SIGNALS\n", argv[0]);
		return 2;
	}
	count = atoi(argv[1]);
	signal(SIGHUP, SIG_IGN);
	child = fork_child();
	if (!child)
		for (;;)
			pause();
	for (int i = 0; i < count; i++)
		check(kill(child, SIGHUP), "kill");
	check(kill(child, SIGKILL), "kill");
	check(waitpid(child, NULL, 0), "waitpid");
	return 0;
}
