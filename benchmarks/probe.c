/* What a container may and what it sees, told by a program inside: lines of section, name, value, with tabs.

   No call is made to find out whether it would be let through: each is stopped by ptrace(2) after the
   container's filter has let it pass (SECCOMP_RET_TRACE gives way to a denial), so that nothing happens. */

#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/user.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

static void tell(const char *section, const char *name, const char *value) {
    printf("%s\t%s\t%s\n", section, name, value);
}

/* -- system calls */

struct trial {
    char name[48];
    long number, first, second;
    int gate; /* 1: int 0x80 */
    int result;
};

#define LAST_CALL 472
#define ENOUGH 900
#define PASSED 55 /* ENOANO: what the tracer answers for a call that was let through */
#define END 0x5ec
static struct trial *trials;
static int count;

static void plan(const char *name, long number, long first, long second, int gate) {
    struct trial *trial = &trials[count++];
    snprintf(trial->name, sizeof trial->name, "%s", name);
    trial->number = number, trial->first = first, trial->second = second, trial->gate = gate, trial->result = -1;
}

static void plan_all(void) {
    static const struct { const char *name; long flag; } SPACES[] = {
        {"CLONE_NEWTIME", 0x80}, {"CLONE_NEWNS", 0x20000}, {"CLONE_NEWCGROUP", 0x2000000}, {"CLONE_NEWUTS", 0x4000000},
        {"CLONE_NEWIPC", 0x8000000}, {"CLONE_NEWUSER", 0x10000000}, {"CLONE_NEWPID", 0x20000000}, {"CLONE_NEWNET", 0x40000000}};
    char name[48];
    for (long number = 0; number < LAST_CALL; number++) {
        if (number > 334 && number < 424) continue; /* none, or uprobes, which no filter is asked about */
        snprintf(name, sizeof name, "%ld", number);
        plan(name, number, 0, 0, 0);
    }
    for (long family = 0; family < 46; family++) {
        snprintf(name, sizeof name, "socket(%ld)", family);
        plan(name, SYS_socket, family, 2, 0);
    }
    plan("socket(2^32 + 38)", SYS_socket, 0x100000026, 5, 0);
    for (unsigned n = 0; n < sizeof SPACES / sizeof *SPACES; n++) {
        snprintf(name, sizeof name, "clone(%s)", SPACES[n].name);
        plan(name, SYS_clone, SPACES[n].flag | SIGCHLD, 0, 0);
    }
    static const unsigned long PERSONALITIES[] = {0, 8, 0x20000, 0x20008, 0xffffffff, 0x40000, 0x400000};
    for (int n = 0; n < 7; n++) {
        snprintf(name, sizeof name, "personality(%#lx)", PERSONALITIES[n]);
        plan(name, SYS_personality, PERSONALITIES[n], 0, 0);
    }
    plan("ioctl(TIOCSTI)", SYS_ioctl, 0, 0x5412, 0);
    plan("ioctl(TIOCLINUX)", SYS_ioctl, 0, 0x541C, 0);
    plan("getpid of i386", 20, 0, 0, 1);
    plan("mount of i386", 21, 0, 0, 1);
    plan("getpid of x32", 0x40000000 + 39, 0, 0, 0);
    plan("mount of x32", 0x40000000 + 165, 0, 0, 0);
}

static int call(const struct trial *trial) {
    long result;
    if (trial->gate)
        __asm__ volatile("int $0x80" : "=a"(result) : "a"(trial->number), "b"(0L) : "memory", "r8", "r9", "r10", "r11");
    else {
        register long fourth __asm__("r10") = 0, fifth __asm__("r8") = 0, sixth __asm__("r9") = 0;
        __asm__ volatile("syscall" : "=a"(result) : "a"(trial->number), "D"(trial->first), "S"(trial->second), "d"(0L),
                         "r"(fourth), "r"(fifth), "r"(sixth) : "rcx", "r11", "memory");
    }
    return (int)result < 0 ? -(int)result : 0;
}

static void try_from(int start) {
    struct sock_filter always[] = {{BPF_RET | BPF_K, 0, 0, SECCOMP_RET_TRACE}};
    struct sock_fprog program = {1, always};
    struct trial end = {"", SYS_exit_group, END, 0, 0, 0};
    ptrace(PTRACE_TRACEME, 0, 0, 0);
    raise(SIGSTOP);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0)) _exit(3);
    for (int n = start; n < count; n++) {
        trials[n].result = -2;
        trials[n].result = call(&trials[n]);
    }
    call(&end);
}

static void trace(pid_t child) {
    struct user_regs_struct regs;
    int status;
    waitpid(child, &status, 0);
    ptrace(PTRACE_SETOPTIONS, child, 0, PTRACE_O_TRACESECCOMP | PTRACE_O_EXITKILL);
    for (;;) {
        ptrace(PTRACE_CONT, child, 0, 0);
        if (waitpid(child, &status, __WALL) < 0 || WIFEXITED(status) || WIFSIGNALED(status)) return;
        if (status >> 8 != (SIGTRAP | PTRACE_EVENT_SECCOMP << 8)) {
            kill(child, SIGKILL);
            continue;
        }
        ptrace(PTRACE_GETREGS, child, 0, &regs);
        if (regs.orig_rax == SYS_exit_group && regs.rdi == END) {
            kill(child, SIGKILL);
            continue;
        }
        regs.orig_rax = -1;
        regs.rax = -PASSED;
        ptrace(PTRACE_SETREGS, child, 0, &regs);
    }
}

static void system_calls(void) {
    trials = mmap(0, ENOUGH * sizeof *trials, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    plan_all();
    for (int start = 0; start < count;) {
        fflush(stdout);
        pid_t child = fork();
        if (!child) try_from(start), _exit(4);
        trace(child);
        while (start < count && trials[start].result >= 0) start++;
        if (start < count) trials[start++].result = 0; /* killed for it */
    }
    for (int n = 0; n < count; n++) {
        int result = trials[n].result;
        tell("system call", trials[n].name, result == PASSED ? "allowed" : result ? strerrorname_np(result) : "killed");
    }
}

/* -- what stands in /proc/self/status */

static void status(void) {
    static const char *const KEPT[] = {"Umask", "Uid", "Gid", "Groups", "SigBlk", "SigIgn", "CapInh", "CapPrm", "CapEff",
                                       "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", NULL};
    char line[512];
    FILE *file = fopen("/proc/self/status", "r");
    while (fgets(line, sizeof line, file)) {
        char *value = strchr(line, ':');
        if (!value) continue;
        *value++ = 0;
        value[strcspn(value, "\n")] = 0;
        for (char *c = value; *c; c++)
            if (*c == '\t') *c = ' ';
        while (*value == ' ') value++;
        for (size_t end = strlen(value); end && value[end - 1] == ' '; end--) value[end - 1] = 0;
        for (const char *const *kept = KEPT; *kept; kept++)
            if (!strcmp(*kept, line)) tell("process", line, value);
    }
    fclose(file);
}

/* -- paths of the kernel */

static const char *const PATHS[] = {
    "/proc/acpi", "/proc/asound", "/proc/bus", "/proc/config.gz", "/proc/fs", "/proc/interrupts", "/proc/irq", "/proc/kallsyms",
    "/proc/kcore", "/proc/key-users", "/proc/keys", "/proc/kmsg", "/proc/kpagecount", "/proc/latency_stats", "/proc/modules",
    "/proc/mtrr", "/proc/pressure/cpu", "/proc/sched_debug", "/proc/scsi", "/proc/slabinfo", "/proc/sys", "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe", "/proc/sysrq-trigger", "/proc/timer_list", "/proc/timer_stats", "/proc/vmallocinfo", "/sys",
    "/sys/devices/system/cpu/cpu0/thermal_throttle", "/sys/devices/virtual/powercap", "/sys/firmware", "/sys/fs/bpf",
    "/sys/fs/cgroup", "/sys/kernel", "/sys/kernel/debug", "/sys/kernel/security", "/sys/kernel/tracing", "/sys/module", "/sys/power", NULL};

static int entries(const char *path) {
    int found = 0;
    DIR *folder = opendir(path);
    if (!folder) return -1;
    for (struct dirent *entry; (entry = readdir(folder));) found += strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..");
    closedir(folder);
    return found;
}

static void paths(void) {
    for (const char *const *path = PATHS; *path; path++) {
        struct stat state;
        struct statfs fs;
        char value[64], byte;
        if (lstat(*path, &state)) {
            tell("path", *path, "not there");
            continue;
        }
        statfs(*path, &fs);
        int empty = S_ISDIR(state.st_mode) && fs.f_type == 0x01021994 && entries(*path) == 0;
        if (empty || (S_ISCHR(state.st_mode) && state.st_rdev == makedev(1, 3))) {
            tell("path", *path, "hidden");
            continue;
        }
        int fd = open(*path, O_RDONLY | O_NONBLOCK), unread = fd < 0 ? errno : 0;
        if (fd >= 0 && !S_ISDIR(state.st_mode) && read(fd, &byte, 1) < 0) unread = errno;
        if (fd >= 0) close(fd);
        snprintf(value, sizeof value, "%s%s%s", fs.f_flags & ST_RDONLY ? "read-only" : "writable by its mode", unread ? ", not readable: " : "",
                 unread ? strerrorname_np(unread) : "");
        tell("path", *path, value);
    }
}

/* -- mounts, control groups, settings, namespaces */

static void mounts(void) {
    char line[4096], target[512], options[512], rest[2048], type[64], value[1024];
    FILE *file = fopen("/proc/self/mountinfo", "r");
    while (fgets(line, sizeof line, file)) {
        char *dash = strstr(line, " - ");
        if (!dash || sscanf(line, "%*s %*s %*s %*s %511s %511s", target, options) != 2) continue;
        sscanf(dash, " - %63s %*s %2047s", type, rest);
        snprintf(value, sizeof value, "%s %s", type, options);
        for (char *word = strtok(rest, ","); word; word = strtok(NULL, ","))
            if (!strncmp(word, "size=", 5) || !strncmp(word, "mode=", 5) || !strncmp(word, "ptmxmode=", 9) || !strncmp(word, "gid=", 4))
                strncat(value, ",", 2), strncat(value, word, 64);
        tell("mount", target, value);
    }
    fclose(file);
}

static void control_groups(void) {
    char line[1024];
    int hierarchies = 0, outside = 0;
    FILE *file = fopen("/proc/self/cgroup", "r");
    while (fgets(line, sizeof line, file)) {
        char *path = strrchr(line, ':');
        hierarchies++;
        outside += path && strcmp(path, ":/\n") != 0;
    }
    fclose(file);
    tell("control group", "place in /proc/self/cgroup", outside ? "the host's path" : "/");
    tell("control group", "release_agent in sight", access("/sys/fs/cgroup/memory/release_agent", F_OK) ? "no" : "yes");
    int made = mkdir("/sys/fs/cgroup/probe", 0755);
    tell("control group", "mkdir below /sys/fs/cgroup", made ? strerrorname_np(errno) : "done");
    mkdir("/tmp/probe-cgroup", 0755);
    int mounted = mount("none", "/tmp/probe-cgroup", "cgroup", 0, "memory");
    if (!mounted) umount("/tmp/probe-cgroup");
    if (!made) rmdir("/sys/fs/cgroup/probe");
    tell("control group", "mount of a hierarchy", mounted ? strerrorname_np(errno) : "done");
}

static void settings(void) {
    static const char *const NAMES[] = {"net/ipv4/ip_unprivileged_port_start", "net/ipv4/ping_group_range", "net/ipv4/ip_forward",
                                        "net/ipv4/conf/all/rp_filter", "net/ipv6/conf/default/accept_ra", "fs/mqueue/queues_max", NULL};
    for (const char *const *name = NAMES; *name; name++) {
        char path[256], value[128] = "not there";
        snprintf(path, sizeof path, "/proc/sys/%s", *name);
        int fd = open(path, O_RDONLY);
        if (fd >= 0) {
            ssize_t length = read(fd, value, sizeof value - 1);
            value[length > 0 ? length : 0] = 0;
            value[strcspn(value, "\n")] = 0;
            for (char *c = value; *c; c++)
                if (*c == '\t') *c = ' ';
            close(fd);
        }
        tell("setting", *name, value);
    }
    int fd = open("/proc/sys/net/ipv4/ip_forward", O_WRONLY);
    tell("setting", "writing one", fd < 0 ? strerrorname_np(errno) : "allowed");
}

static void namespaces(void) {
    static const char *const KINDS[] = {"cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts", NULL};
    for (const char *const *kind = KINDS; *kind; kind++) {
        char path[64], goal[64] = "";
        snprintf(path, sizeof path, "/proc/self/ns/%s", *kind);
        tell("namespace", *kind, readlink(path, goal, sizeof goal - 1) < 0 ? "not there" : goal);
    }
}

/* -- devices */

static void list_devices(const char *folder) {
    DIR *open_folder = opendir(folder);
    if (!open_folder) return;
    for (struct dirent *entry; (entry = readdir(open_folder));) {
        char path[512], value[600], goal[256] = "";
        struct stat state;
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        if (entry->d_name[0] == '.' || lstat(path, &state)) continue;
        if (S_ISDIR(state.st_mode)) {
            snprintf(value, sizeof value, "directory %04o", state.st_mode & 07777);
        } else if (S_ISLNK(state.st_mode)) {
            if (readlink(path, goal, sizeof goal - 1) < 0) continue;
            snprintf(value, sizeof value, "-> %s", goal);
        } else {
            snprintf(value, sizeof value, "%c %d:%d %04o %d:%d", S_ISCHR(state.st_mode) ? 'c' : S_ISBLK(state.st_mode) ? 'b' : '-',
                     major(state.st_rdev), minor(state.st_rdev), state.st_mode & 07777, state.st_uid, state.st_gid);
        }
        tell("device", path, value);
    }
    closedir(open_folder);
}

static void open_devices(void) {
    static const struct { const char *name; mode_t kind; int major, minor; } NODES[] = {
        {"null", S_IFCHR, 1, 3}, {"random", S_IFCHR, 1, 8}, {"mem", S_IFCHR, 1, 1}, {"port", S_IFCHR, 1, 4}, {"kmsg", S_IFCHR, 1, 11},
        {"tty0", S_IFCHR, 4, 0}, {"console", S_IFCHR, 5, 1}, {"fuse", S_IFCHR, 10, 229}, {"tun", S_IFCHR, 10, 200}, {"kvm", S_IFCHR, 10, 232},
        {"loop-control", S_IFCHR, 10, 237}, {"loop0", S_IFBLK, 7, 0}, {"sda", S_IFBLK, 8, 0}, {"vda", S_IFBLK, 254, 0}, {"nvme0n1", S_IFBLK, 259, 0}};
    for (unsigned n = 0; n < sizeof NODES / sizeof *NODES; n++) {
        const char *path = "/probe-node", *value = "opened";
        unlink(path);
        if (mknod(path, NODES[n].kind | 0600, makedev(NODES[n].major, NODES[n].minor))) {
            tell("device made and opened", NODES[n].name, "no mknod");
            continue;
        }
        int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
        /* ENXIO, ENODEV, EIO: past the control group, and no such thing on this machine. */
        if (fd < 0) value = errno == EPERM || errno == EACCES ? strerrorname_np(errno) : "opened";
        else close(fd);
        tell("device made and opened", NODES[n].name, value);
        unlink(path);
    }
}

int main(void) {
    status();
    namespaces();
    mounts();
    paths();
    control_groups();
    settings();
    list_devices("/dev");
    open_devices();
    system_calls();
    return 0;
}
