/* SPDX-License-Identifier: Apache-2.0 */
/*
 * position FD: read the 64-bit number at the start of a mapped file again and again, as the kernel
 * reads a ring's consumer position. Ends when it is very large; status 1 if it ever went back.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

int main(int argc, char **argv)
{
	volatile uint64_t *position = mmap(NULL, 4096, PROT_READ, MAP_SHARED, atoi(argv[1]), 0);
	uint64_t last = 0;

	puts("ready");
	fflush(stdout);
	while (last < 1ULL << 40) {
		uint64_t now = *position;

		if (now < last) {
			printf("%#llx then %#llx\n", (unsigned long long)last, (unsigned long long)now);
			return 1;
		}
		last = now;
	}
	return argc != 2;
}
