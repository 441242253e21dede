// SPDX-License-Identifier: Apache-2.0
//
// For each argument, a number of bits, have slices of that size, spin for a
// million instructions, and print how many slices were drawn meanwhile. The
// generator adds the same odd number to its state for each.
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { PORT = 0x5f0, BITS = 8 };

static uint64_t state(int fd)
{
	uint64_t v = 0;

	return pread(fd, &v, sizeof(v), PORT) == sizeof(v) ? v : 0;
}

int main(int argc, char **argv)
{
	uint64_t inverse = 1, step = 0x9e3779b97f4a7c15ull;
	int fd = open("/dev/port", O_RDWR);

	if (fd < 0)
		return 2;
	/* Newton's iteration doubles the bits that are right. */
	for (int i = 0; i < 6; i++)
		inverse *= 2 - step * inverse;
	for (int i = 1; i < argc; i++) {
		unsigned char bits = atoi(argv[i]);
		uint64_t before;

		if (pwrite(fd, &bits, 1, PORT + BITS) != 1)
			return 2;
		before = state(fd);
		for (long n = 500000; n > 0; n--)
			__asm__ volatile("");
		printf("%d %llu\n", bits, (unsigned long long)((state(fd) - before) * inverse));
	}
	return 0;
}
