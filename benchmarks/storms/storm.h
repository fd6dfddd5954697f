/* SPDX-License-Identifier: Apache-2.0 */
/* What every storm shares: a clock, and loops that run side by side until the time is up.
 *
 * The storms are written in C so that they are nobody's service: the agent takes every Python process for a candidate
 * and follows its children. */
#ifndef REFLEX_STORM_H
#define REFLEX_STORM_H

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SECOND_NS 1000000000ULL
#define MAX_LOOPS 64

/* One loop: repeats its operation until `deadline_ns` of the monotonic clock, and returns how often it did. */
typedef uint64_t loop(uint64_t deadline_ns, char **arguments);

static inline uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * SECOND_NS + now.tv_nsec;
}

static inline void die(const char *what)
{
	perror(what);
	exit(1);
}

static inline void *checked(void *pointer, const char *what)
{
	if (pointer == MAP_FAILED || !pointer)
		die(what);
	return pointer;
}

static inline int check(int result, const char *what)
{
	if (result < 0)
		die(what);
	return result;
}

/* A child that dies with its parent, so that a storm that is ended leaves nothing behind. */
static inline pid_t fork_child(void)
{
	pid_t child = check(fork(), "fork");

	if (!child)
		check(prctl(PR_SET_PDEATHSIG, SIGKILL), "prctl");
	return child;
}

static inline void expect_success(pid_t child)
{
	int status;

	check(waitpid(child, &status, 0), "waitpid");
	if (status) {
		fprintf(stderr, "a loop of the storm ended with status %d\n", status);
		exit(1);
	}
}

/* CPU time of all children that ended, and of theirs, in seconds. */
static inline double children_cpu_s(void)
{
	struct rusage used;

	check(getrusage(RUSAGE_CHILDREN, &used), "getrusage");
	return used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

struct result {
	uint64_t done;
	uint64_t took_ns;
};

/* Usage: PROGRAM SECONDS LOOPS [ARGUMENT...]. Prints operations a second, summed over the loops, and operations in
 * a second of CPU time. */
static inline int run_storm(int argc, char **argv, loop *body)
{
	struct result *results;
	double rate = 0, done = 0;
	int loops;
	uint64_t duration_ns;
	pid_t children[MAX_LOOPS];

	if (argc < 3 || (loops = atoi(argv[2])) < 1 || loops > MAX_LOOPS) {
		fprintf(stderr, "usage: %s SECONDS LOOPS [ARGUMENT...]\n", argv[0]);
		return 2;
	}
	duration_ns = strtod(argv[1], NULL) * SECOND_NS;
	results = checked(mmap(NULL, sizeof(*results) * loops, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0),
			  "mmap");
	for (int i = 0; i < loops; i++) {
		children[i] = fork_child();
		if (!children[i]) {
			uint64_t started_ns = now_ns();

			results[i].done = body(started_ns + duration_ns, argv + 3);
			results[i].took_ns = now_ns() - started_ns;
			_exit(0);
		}
	}
	for (int i = 0; i < loops; i++) {
		expect_success(children[i]);
		rate += (double)results[i].done * SECOND_NS / results[i].took_ns;
		done += results[i].done;
	}
	printf("%.1f %.1f\n", rate, done / children_cpu_s());
	return 0;
}

#endif
