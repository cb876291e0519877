/* SPDX-License-Identifier: Apache-2.0 */
/*
 * probes: USDT probes as <sys/sdt.h> of SystemTap creates them, with notes written by hand.
 *
 *   probes [TEXT]
 *   probes set       returns 33, or the value that a policy set at tetra/settable
 *
 * tetra/numbers has arguments of several sizes in registers, in memory and as constants, at two
 * places; tetra/text a string; tetra/guarded runs only while its semaphore is above 0.
 */
#include <stdio.h>
#include <string.h>

#define NOTE(probe, semaphore, arguments)                                                    \
	"990: nop\n"                                                                           \
	".pushsection .note.stapsdt,\"?\",\"note\"\n"                                         \
	".balign 4\n"                                                                          \
	".4byte 992f-991f, 994f-993f, 3\n"                                                     \
	"991: .asciz \"stapsdt\"\n"                                                           \
	"992: .balign 4\n"                                                                     \
	"993: .8byte 990b\n"                                                                   \
	".8byte _.stapsdt.base\n"                                                              \
	".8byte " semaphore "\n"                                                               \
	".asciz \"tetra\"\n"                                                                  \
	".asciz \"" probe "\"\n"                                                              \
	".asciz \"" arguments "\"\n"                                                          \
	"994: .balign 4\n"                                                                     \
	".popsection\n"                                                                        \
	".ifndef _.stapsdt.base\n"                                                             \
	".pushsection .stapsdt.base,\"aG\",\"progbits\",.stapsdt.base,comdat\n"             \
	".weak _.stapsdt.base\n"                                                               \
	".hidden _.stapsdt.base\n"                                                             \
	"_.stapsdt.base: .space 1\n"                                                           \
	".size _.stapsdt.base, 1\n"                                                            \
	".popsection\n"                                                                        \
	".endif\n"

/* Programs test it; the kernel increments it while the probe is used. */
__attribute__((section(".probes"), used)) volatile unsigned short guarded_semaphore;

static __attribute__((noinline)) void numbers(int small, long wide, volatile int *memory)
{
	asm volatile(NOTE("numbers", "0", "-4@%0 8@%1 -4@%2 -4@%3")
		     ::"r"(small), "r"(wide), "m"(*memory), "i"(7));
}

static __attribute__((noinline)) void other_place(unsigned char byte, long wide)
{
	asm volatile(NOTE("numbers", "0", "1@%0 8@%1 -4@%2 -4@%3")
		     ::"r"((int)byte), "r"(wide), "r"((int)wide), "i"(-8));
}

static __attribute__((noinline)) void text(const char *word, unsigned long size)
{
	asm volatile(NOTE("text", "0", "8@%0 8@%1") ::"r"(word), "r"(size));
}

static __attribute__((noinline)) void guarded(long value)
{
	asm volatile(NOTE("guarded", "guarded_semaphore", "8@%0") ::"r"(value));
}

static __attribute__((noinline)) void settable(volatile int *memory)
{
	asm volatile(NOTE("settable", "0", "-4@%0")::"m"(*memory) : "memory");
}

int main(int argc, char **argv)
{
	volatile int memory = -33;

	if (argc > 1 && !strcmp(argv[1], "set")) {
		memory = 33;
		settable(&memory);
		return memory;
	}
	numbers(-5, 5000000000l, &memory);
	other_place(250, -6);
	text(argc > 1 ? argv[1] : "nothing", 7);
	if (guarded_semaphore)
		guarded(44);
	printf("%d\n", guarded_semaphore);
	return 0;
}
