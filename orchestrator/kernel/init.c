/* Pid 1 of a container with `init: true`: runs its arguments, passes signals on, buries orphans.
 *
 *   init [--] PROGRAM [ARGUMENT...]
 *
 * Freestanding, no C library: a static program of about a kilobyte that runs in any root filesystem, an
 * empty one included. Its bytes stand in init.py, which says how they are built.
 *
 * All signals are blocked from the first instruction and taken one by one with rt_sigtimedwait(2): a blocked
 * signal is queued even for a pid 1, which otherwise never sees one that it has no handler for
 * (pid_namespaces(7)), so a TERM that comes before the program runs is not lost. Who starts this program with
 * signals blocked already closes the gap before that instruction too.
 */

#if defined(__x86_64__)
enum { nr_write = 1, nr_sigaction = 13, nr_sigprocmask = 14, nr_ioctl = 16, nr_clone = 56, nr_execve = 59,
       nr_exit = 231, nr_wait4 = 61, nr_kill = 62, nr_setpgid = 109, nr_getpid = 39, nr_sigtimedwait = 128,
       nr_prctl = 157 };

static long call(long number, long a, long b, long c, long d)
{
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = 0;
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
                     : "rcx", "r11", "memory");
    return result;
}

/* The kernel starts us with the stack pointer at argc (System V ABI, AMD64 supplement, 3.4.1). */
__asm__(".globl _start\n_start:\n xor %ebp, %ebp\n mov %rsp, %rdi\n and $-16, %rsp\n call run\n hlt\n");

#elif defined(__aarch64__)
enum { nr_write = 64, nr_sigaction = 134, nr_sigprocmask = 135, nr_ioctl = 29, nr_clone = 220, nr_execve = 221,
       nr_exit = 94, nr_wait4 = 260, nr_kill = 129, nr_setpgid = 154, nr_getpid = 172, nr_sigtimedwait = 137,
       nr_prctl = 167 };

static long call(long number, long a, long b, long c, long d)
{
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = 0;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
    return x0;
}

__asm__(".globl _start\n_start:\n mov x29, #0\n mov x0, sp\n bl run\n");
#endif

enum { sigchld = 17, eintr = 4, enoent = 2, eacces = 13, enotdir = 20, wnohang = 1,
       pr_set_child_subreaper = 36, tiocspgrp = 0x5410, sig_setmask = 2, not_found = 127, not_executable = 126 };

static void say(const char *text)
{
    long length = 0;
    while (text[length])
        length++;
    call(nr_write, 2, (long)text, length, 0);
}

/* Fails with the most telling error: a file that may not be run beats one that is not there. */
static long search(char **arguments, char **environment)
{
    const char *name = arguments[0], *path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    long worst = -enoent, result;
    char full[4096];
    for (const char *at = name; *at; at++)
        if (*at == '/')
            return call(nr_execve, (long)name, (long)arguments, (long)environment, 0);
    if (!*name)
        return -enoent;
    for (char **variable = environment; *variable; variable++) {
        const char *text = *variable;
        if (text[0] == 'P' && text[1] == 'A' && text[2] == 'T' && text[3] == 'H' && text[4] == '=')
            path = text + 5;
    }
    for (;;) {
        unsigned long used = 0;
        while (*path && *path != ':' && used < sizeof full - 2)
            full[used++] = *path++;
        if (used)
            full[used++] = '/'; /* an empty part of PATH is the current directory */
        const char *from = name;
        while (*from && used < sizeof full - 1)
            full[used++] = *from++;
        full[used] = 0;
        if (!*from && (!*path || *path == ':')) {
            result = call(nr_execve, (long)full, (long)arguments, (long)environment, 0);
            if (result != -enoent && result != -enotdir)
                worst = result;
        }
        while (*path && *path != ':')
            path++; /* a part that is too long is skipped */
        if (!*path)
            return worst;
        path++;
    }
}

static void child(char **arguments, char **environment)
{
    /* A process group of its own, in front of the terminal if there is one: Ctrl-C then reaches the program
     * and what it starts, not us. Blocked SIGTTOU lets us do that from the background (tcsetpgrp(3)). */
    long none = 0, error;
    call(nr_setpgid, 0, 0, 0, 0);
    int foreground = (int)call(nr_getpid, 0, 0, 0, 0);
    call(nr_ioctl, 0, tiocspgrp, (long)&foreground, 0);
    call(nr_sigprocmask, sig_setmask, (long)&none, 0, 8);
    error = search(arguments, environment);
    say("init: ");
    say(arguments[0]);
    say(error == -enoent || error == -enotdir ? ": not found\n" : error == -eacces ? ": permission denied\n"
                                                                                   : ": cannot be executed\n");
    call(nr_exit, error == -enoent || error == -enotdir ? not_found : not_executable, 0, 0, 0);
}

__attribute__((used)) void run(long *stack)
{
    char **arguments = (char **)(stack + 1), **environment = arguments + *stack + 1;
    unsigned long all = ~0ul;
    struct { long handler, flags, restorer; unsigned long mask; } usual = { 0, 0, 0, 0 };
    call(nr_sigprocmask, sig_setmask, (long)&all, 0, 8);
    /* An inherited "ignore" would have the kernel bury our children before we learn how they ended. */
    call(nr_sigaction, sigchld, (long)&usual, 0, 8);
    call(nr_prctl, pr_set_child_subreaper, 1, 0, 0); /* for when we are not pid 1 (pid: host) */
    if (*arguments)
        arguments++;
    if (*arguments && arguments[0][0] == '-' && arguments[0][1] == '-' && !arguments[0][2])
        arguments++;
    if (!*arguments) {
        say("init: no program to run\n");
        call(nr_exit, not_found, 0, 0, 0);
    }
    long program = call(nr_clone, sigchld, 0, 0, 0);
    if (program == 0)
        child(arguments, environment);
    if (program < 0) {
        say("init: cannot fork\n");
        call(nr_exit, not_executable, 0, 0, 0);
    }
    for (;;) {
        long signal = call(nr_sigtimedwait, (long)&all, 0, 0, 8);
        if (signal != sigchld) {
            if (signal > 0)
                call(nr_kill, program, signal, 0, 0);
            continue;
        }
        /* One SIGCHLD may stand for any number of dead. */
        for (;;) {
            int status;
            long dead = call(nr_wait4, -1, (long)&status, wnohang, 0);
            if (dead == program)
                call(nr_exit, status & 127 ? 128 + (status & 127) : status >> 8 & 255, 0, 0, 0);
            if (dead <= 0 && dead != -eintr)
                break;
        }
    }
}
