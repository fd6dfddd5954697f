/* SPDX-License-Identifier: Apache-2.0 */
/* A small message to another process and back, over loopback TCP ("tcp") or a unix socket ("unix"). */
#include "storm.h"

#include <string.h>

#include "loopback.h"

#define MESSAGE_BYTES 64

static void open_pair(int tcp, int ends[2])
{
	struct sockaddr_in address;
	int listener, on = 1;

	if (!tcp) {
		check(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), "socketpair");
		return;
	}
	listener = listen_on_loopback(&address);
	ends[0] = connect_once(&address);
	ends[1] = check(accept(listener, NULL, NULL), "accept");
	close(listener);
	for (int i = 0; i < 2; i++)
		check(setsockopt(ends[i], IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)), "setsockopt");
}

static void echo(int end)
{
	char message[MESSAGE_BYTES];

	while (recv(end, message, sizeof(message), MSG_WAITALL) == MESSAGE_BYTES)
		if (send(end, message, sizeof(message), MSG_NOSIGNAL) != MESSAGE_BYTES)
			break;
	_exit(0);
}

static uint64_t talk_until(uint64_t deadline_ns, char **arguments)
{
	char message[MESSAGE_BYTES] = "ping";
	uint64_t done = 0;
	int ends[2];
	pid_t partner;

	open_pair(!strcmp(arguments[0], "tcp"), ends);
	partner = fork_child();
	if (!partner) {
		close(ends[0]);
		echo(ends[1]);
	}
	close(ends[1]);
	for (; now_ns() < deadline_ns; done++)
		if (send(ends[0], message, sizeof(message), MSG_NOSIGNAL) != MESSAGE_BYTES ||
		    recv(ends[0], message, sizeof(message), MSG_WAITALL) != MESSAGE_BYTES)
			die("ping");
	close(ends[0]);
	expect_success(partner);
	return done;
}

int main(int argc, char **argv)
{
	return run_storm(argc, argv, talk_until);
}
