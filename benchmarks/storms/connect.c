/* SPDX-License-Identifier: Apache-2.0 */
/* Connect, accept and close, over loopback TCP, on a listener of the loop's own. */
#include "storm.h"

#include "loopback.h"

static uint64_t connect_until(uint64_t deadline_ns, char **arguments)
{
	struct sockaddr_in address;
	int listener = listen_on_loopback(&address);
	uint64_t done = 0;

	(void)arguments;
	for (; now_ns() < deadline_ns; done++) {
		int client = connect_once(&address);
		int accepted = check(accept(listener, NULL, NULL), "accept");

		close(client);
		close(accepted);
	}
	return done;
}

int main(int argc, char **argv)
{
	return run_storm(argc, argv, connect_until);
}
