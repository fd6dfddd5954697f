/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets on the loopback address. */
#ifndef REFLEX_LOOPBACK_H
#define REFLEX_LOOPBACK_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

static inline struct sockaddr_in loopback(uint16_t port)
{
	struct sockaddr_in address = {
		.sin_family = AF_INET,
		.sin_port = htons(port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	return address;
}

/* A listener on a free port, which `address` tells. */
static inline int listen_on_loopback(struct sockaddr_in *address)
{
	socklen_t length = sizeof(*address);
	int listener = check(socket(AF_INET, SOCK_STREAM, 0), "socket");

	*address = loopback(0);
	check(bind(listener, (struct sockaddr *)address, length), "bind");
	check(listen(listener, 128), "listen");
	check(getsockname(listener, (struct sockaddr *)address, &length), "getsockname");
	return listener;
}

/* Closing such a connection resets it, so that no port is kept waiting. */
static inline int connect_once(const struct sockaddr_in *address)
{
	struct linger at_once = {.l_onoff = 1, .l_linger = 0};
	int client = check(socket(AF_INET, SOCK_STREAM, 0), "socket");

	check(setsockopt(client, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once)), "setsockopt");
	check(connect(client, (const struct sockaddr *)address, sizeof(*address)), "connect");
	return client;
}

#endif
