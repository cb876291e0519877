// A 32-bit program without libraries: functions with arguments on the stack, and a USDT probe.
// gcc -m32 -nostdlib -static

#define PROBE(provider, name, args, value) __asm__ volatile( \
  "990: nop\n.pushsection .note.stapsdt,\"\",\"note\"\n.balign 4\n.4byte 8, 992f-991f, 3\n" \
  ".asciz \"stapsdt\"\n991: .4byte 990b, 0, 0\n" \
  ".asciz \"" provider "\"\n.asciz \"" name "\"\n.asciz \"" args "\"\n992: .balign 4\n" \
  ".popsection\n" :: "c"(value))

__attribute__((noinline, noclone)) int take_sum(int a, int b) {
  __asm__ volatile("" ::: "memory");
  return a + b;
}

__attribute__((noinline, noclone)) int take_text(const char *text, unsigned int size) {
  __asm__ volatile("" :: "r"(text), "r"(size) : "memory");
  return -7;
}

void _start(void) {
  int sum = take_sum(4711, -11);
  char text[] = "narrow text";  // on the stack: untouched memory may be absent
  take_text(text, 11);
  PROBE("tetra", "narrow", "-4@%%ecx 4@$9", -33);
  __asm__ volatile("int $0x80" :: "a"(1), "b"(sum == 4700 ? 0 : 1));
  __builtin_unreachable();
}
