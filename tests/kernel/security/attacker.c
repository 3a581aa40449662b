/* What a hostile container runs. One static program, one word for each attack.

   hunt            look for whoever enters this container and try to get hold of it, until SIGTERM
   swap A B ...    exchange each pair of names, for ever
   tty             push characters into the terminal
   keyring         what the session keyring is called */

#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile sig_atomic_t stopped;
static void stop(int number) { stopped = number; }

/* -- hunt */

static const char *const LINKS[] = {"exe", "cwd", "root", "ns/mnt", "fd/0", "fd/3", "fd/4", "fd/5", "fd/6", "fd/7", "fd/8", NULL};
static const char *const TEXTS[] = {"mem", "environ", "auxv", "stack", "maps", "io", NULL};
static const char *const FOLDERS[] = {"map_files", NULL};

static int is_entering(const char *pid) {
    char path[300], comm[32] = "";
    snprintf(path, sizeof path, "/proc/%s/comm", pid);
    int fd = open(path, O_RDONLY);
    if (fd < 0) return 0;
    ssize_t length = read(fd, comm, sizeof comm - 1);
    close(fd);
    return length > 0 && !strncmp(comm, "pystack-keeper", 14);
}

static long caught;
static char last[32] = "nothing";
static void judge(const char *pid, const char *what, long result) {
    /* Only what worked while it was not yet the container's own program counts. */
    if (result >= 0 && is_entering(pid)) {
        caught++;
        strncpy(last, what, sizeof last - 1);
    }
}

static long entries(const char *path) {
    long count = -1;
    DIR *folder = opendir(path);
    for (struct dirent *entry; folder && (entry = readdir(folder));)
        count += entry->d_name[0] != '.';
    if (folder) closedir(folder);
    return count;
}

static void attack(const char *pid) {
    char path[300], byte;
    int number = atoi(pid);
    for (const char *const *place = LINKS; *place; place++) {
        snprintf(path, sizeof path, "/proc/%s/%s", pid, *place);
        int fd = open(path, O_PATH);
        judge(pid, *place, fd);
        if (fd >= 0) close(fd);
    }
    for (const char *const *place = TEXTS; *place; place++) {
        snprintf(path, sizeof path, "/proc/%s/%s", pid, *place);
        int fd = open(path, O_RDWR);
        if (fd < 0) fd = open(path, O_RDONLY);
        judge(pid, *place, (fd < 0 ? 0 : read(fd, &byte, 1)) - 1);
        if (fd >= 0) close(fd);
    }
    for (const char *const *place = FOLDERS; *place; place++) {
        snprintf(path, sizeof path, "/proc/%s/%s", pid, *place);
        judge(pid, *place, entries(path));
    }
    int pidfd = syscall(434 /* pidfd_open */, number, 0);
    for (int fd = 0; pidfd >= 0 && fd < 12; fd++) {
        int stolen = syscall(438 /* pidfd_getfd */, pidfd, fd, 0);
        judge(pid, "a descriptor", stolen);
        if (stolen >= 0) close(stolen);
    }
    if (pidfd >= 0) close(pidfd);
    struct iovec here = {&byte, 1}, there = {(void *)0x400000, 1};
    long copied = process_vm_readv(number, &here, 1, &there, 1, 0);
    judge(pid, "its memory", copied < 0 && errno == EFAULT ? 0 : copied);
    long seized = ptrace(PTRACE_SEIZE, number, 0, 0);
    judge(pid, "ptrace", seized);
    if (seized >= 0) {
        int status;
        ptrace(PTRACE_INTERRUPT, number, 0, 0);
        waitpid(number, &status, __WALL);
        ptrace(PTRACE_DETACH, number, 0, 0);
    }
}

static int hunt(void) {
    long seen = 0;
    signal(SIGTERM, stop);
    setvbuf(stdout, NULL, _IOLBF, 0);
    puts("ready");
    while (!stopped) {
        DIR *proc = opendir("/proc");
        for (struct dirent *entry; (entry = readdir(proc));)
            if (entry->d_name[0] >= '0' && entry->d_name[0] <= '9' && is_entering(entry->d_name)) {
                seen++;
                attack(entry->d_name);
            }
        closedir(proc);
    }
    printf("seen %ld caught %ld last %s\n", seen, caught, last);
    return 0;
}

/* -- swap */

static void swap(char **names) {
    puts("ready");
    fflush(stdout);
    for (;;)
        for (char **pair = names; pair[0]; pair += 2)
            syscall(SYS_renameat2, AT_FDCWD, pair[0], AT_FDCWD, pair[1], 2 /* RENAME_EXCHANGE */);
}

/* -- tty */

static int tty(void) {
    int fd = open("/dev/tty", O_RDWR);
    char paste[2] = {3, 0};
    printf("TIOCSTI %s\n", ioctl(fd, TIOCSTI, "x") ? strerror(errno) : "done");
    printf("TIOCLINUX %s\n", ioctl(fd, TIOCLINUX, paste) ? strerror(errno) : "done");
    return 0;
}

/* -- keyring */

static int keyring(void) {
    long serial = syscall(SYS_keyctl, 0 /* GET_KEYRING_ID */, -3 /* session */, 0);
    printf("%ld\n", serial < 0 ? -(long)errno : serial);
    return 0;
}

int main(int count, char **words) {
    const char *word = count > 1 ? words[1] : "";
    if (!strcmp(word, "hunt")) return hunt();
    if (!strcmp(word, "swap")) swap(words + 2);
    if (!strcmp(word, "tty")) return tty();
    if (!strcmp(word, "keyring")) return keyring();
    return 2;
}
