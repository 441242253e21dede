// SPDX-License-Identifier: Apache-2.0
//
// For as many seconds as the argument says, turn time stamps of a socket on and
// off, which changes a branch of the kernel each time, while three threads send
// what goes through that branch.
#include <arpa/inet.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static atomic_int stop;

static void *traffic(void *arg)
{
	char data[64] = { 0 };

	while (!stop) {
		struct sockaddr_in to = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
		socklen_t len = sizeof(to);
		int s = socket(AF_INET, SOCK_DGRAM, 0);

		if (bind(s, (void *)&to, len) || getsockname(s, (void *)&to, &len))
			exit(2);
		for (int i = 0; i < 20; i++) {
			sendto(s, data, sizeof(data), 0, (void *)&to, len);
			recv(s, data, sizeof(data), MSG_DONTWAIT);
		}
		close(s);
	}
	return arg;
}

int main(int argc, char **argv)
{
	time_t end = time(NULL) + (argc > 1 ? atoi(argv[1]) : 0);
	unsigned long flips = 0;
	pthread_t t[3];

	for (int i = 0; i < 3; i++)
		if (pthread_create(&t[i], NULL, traffic, NULL))
			return 2;
	for (; time(NULL) < end; flips++) {
		int one = 1, s = socket(AF_INET, SOCK_DGRAM, 0);

		if (setsockopt(s, SOL_SOCKET, SO_TIMESTAMP, &one, sizeof(one)))
			return 2;
		close(s);
	}
	stop = 1;
	for (int i = 0; i < 3; i++)
		pthread_join(t[i], NULL);
	printf("%lu\n", flips);
	return 0;
}
