// SPDX-License-Identifier: Apache-2.0
//
// Two threads on two processors add to one counter without a lock, and record
// each time they find that the other one was faster. What is printed depends on
// all that the interleaving was.
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>

enum { ROUNDS = 20000 };

static volatile unsigned counter, ready;
static struct { unsigned lost; uint64_t hash; } seen[2];

static void *add(void *arg)
{
	int me = (int)(intptr_t)arg;
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(me, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		return "affinity";
	__atomic_fetch_add(&ready, 1, __ATOMIC_SEQ_CST);
	while (ready < 2)
		__builtin_ia32_pause();
	for (unsigned i = 0; i < ROUNDS; i++) {
		unsigned have = counter;

		counter = have + 1;
		if (counter != have + 1) {
			seen[me].lost++;
			seen[me].hash = (seen[me].hash ^ i) * 0x100000001b3ull;
		}
	}
	return NULL;
}

int main(void)
{
	pthread_t t[2];
	void *err;

	for (intptr_t i = 0; i < 2; i++)
		if (pthread_create(&t[i], NULL, add, (void *)i))
			return 2;
	for (int i = 0; i < 2; i++)
		if (pthread_join(t[i], &err) || err)
			return 2;
	printf("%u %u %u %016llx\n", counter, seen[0].lost, seen[1].lost,
	       (unsigned long long)(seen[0].hash ^ seen[1].hash));
	return 0;
}
