/* SPDX-License-Identifier: Apache-2.0 */
/*
 * calls: functions with every kind of argument, for probes in programs.
 *
 *   calls numbers     narrow numbers, negative ones too
 *   calls text TEXT   a string
 *   calls sum A B     returns the sum
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PROBED __attribute__((noinline, noclone, used))

PROBED void take_narrow(signed char a, unsigned char b, short c, unsigned short d, int e)
{
	asm volatile("" ::"r"((int)a), "r"((int)b), "r"((int)c), "r"((int)d), "r"(e) : "memory");
}

PROBED void take_wide(unsigned int a, long b, unsigned long c, size_t d)
{
	asm volatile("" ::"r"(a), "r"(b), "r"(c), "r"(d) : "memory");
}

PROBED void take_text(const char *text, size_t size)
{
	asm volatile("" ::"r"(text), "r"(size) : "memory");
}

PROBED long take_sum(long a, long b)
{
	return a + b;
}

PROBED long take_difference(long a, long b)
{
	return a - b;
}

int main(int argc, char **argv)
{
	if (argc < 2)
		return 2;
	if (!strcmp(argv[1], "numbers")) {
		take_narrow(-2, 254, -30000, 60000, -100000);
		take_wide(4000000000u, -5000000000l, 18000000000000000000ul, 7);
	} else if (!strcmp(argv[1], "text") && argc > 2) {
		take_text(argv[2], strlen(argv[2]));
	} else if (!strcmp(argv[1], "sum") && argc > 3) {
		printf("%ld\n", take_sum(atol(argv[2]), atol(argv[3])));
	}
	return 0;
}
