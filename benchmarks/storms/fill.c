/* SPDX-License-Identifier: Apache-2.0 */
/* Fills the accept queue of somebody else's listener: connects, and closes when all connections are open. */
#include "storm.h"

#include "loopback.h"

int main(int argc, char **argv)
{
	struct sockaddr_in address;
	int count, *clients;

	if (argc != 3) {
		fprintf(stderr, "usage: %s PORT CONNECTIONS\n", argv[0]);
		return 2;
	}
	address = loopback(atoi(argv[1]));
	count = atoi(argv[2]);
	clients = checked(calloc(count, sizeof(*clients)), "calloc");
	for (int i = 0; i < count; i++)
		clients[i] = connect_once(&address);
	for (int i = 0; i < count; i++)
		close(clients[i]);
	return 0;
}
