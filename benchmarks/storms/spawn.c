/* SPDX-License-Identifier: Apache-2.0 */
/* Fork, exec and exit: starts the program that the argument names, and waits for its end. */
#include "storm.h"

#include <spawn.h>

extern char **environ;

static uint64_t spawn_until(uint64_t deadline_ns, char **arguments)
{
	char *argv[] = {arguments[0], NULL};
	uint64_t done = 0;
	pid_t child;

	for (; now_ns() < deadline_ns; done++) {
		errno = posix_spawn(&child, arguments[0], NULL, NULL, argv, environ);
		if (errno)
			die("posix_spawn");
		expect_success(child);
	}
	return done;
}

int main(int argc, char **argv)
{
	return run_storm(argc, argv, spawn_until);
}
