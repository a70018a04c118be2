/*
 * The jail: carries out a plan, operation by operation, inside the process that becomes the container's (or joins it).
 * Targets are always looked up inside the new root, so that no link in an image can lead out of it.
 */

#define _GNU_SOURCE
#include "jail.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/openat2.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SYS_mount_setattr
#define SYS_mount_setattr 442
#endif
#define PASS_FD 3 /* the socket over which `tty` and `dial` hand out a descriptor */

struct attributes { /* struct mount_attr, which older headers lack */
    unsigned long long set, clear, propagation, userns;
};

int complain_to = 2, lifeline = -1;
static int root = -1, doors[8], door_count;
static struct sock_fprog filter;

_Noreturn void fail(int status, const char *step, const char *what) {
    dprintf(complain_to, "%s %s: %s\n", step, what, strerror(errno));
    _exit(status);
}

struct plan read_plan(int fd) {
    struct stat info;
    struct plan plan;
    if (fd < 0 || fstat(fd, &info) < 0 || !(plan.at = malloc(info.st_size + 1))) fail(125, "read", "plan");
    if (pread(fd, plan.at, info.st_size, 0) != info.st_size) fail(125, "read", "plan");
    plan.end = plan.at + info.st_size;
    *plan.end = 0;
    return plan;
}

char *next_word(struct plan *plan) {
    char *word = plan->at;
    if (word >= plan->end) fail(125, "read", "plan");
    plan->at += strlen(word) + 1;
    return word;
}

static long number(struct plan *plan) {
    return strtol(next_word(plan), NULL, 10);
}

void put(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, text, strlen(text)) < 0) fail(125, "write", path);
    close(fd);
}

static void open_door(const char *group) {
    if (door_count == sizeof doors / sizeof *doors) errno = E2BIG, fail(125, "open", group);
    if ((doors[door_count++] = open(group, O_WRONLY | O_CLOEXEC)) < 0) fail(125, "open", group);
}

static void enter_groups(void) {
    while (door_count) {
        if (write(doors[--door_count], "0", 1) < 0) fail(125, "enter", "cgroup");
        close(doors[door_count]);
    }
}

static int inside(const char *path) {
    struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT};
    return syscall(SYS_openat2, root, path, &how, sizeof how);
}

static void make(const char *path, int folder) {
    char parent[PATH_MAX];
    const char *name = strrchr(path, '/') + 1;
    snprintf(parent, sizeof parent, "%.*s", (int)(name - path), path);
    int fd = inside(parent);
    if (fd < 0 || (folder && mkdirat(fd, name, 0755) < 0)) fail(125, "make", path);
    int file = folder ? -1 : openat(fd, name, O_CREAT | O_EXCL | O_NOFOLLOW | O_WRONLY | O_CLOEXEC, 0644);
    if (!folder && file < 0) fail(125, "make", path);
    if (file >= 0) close(file);
    close(fd);
}

/* Open a place in the new root, made together with the folders on its way where it is not there. */
static int place(const char *path, int folder) {
    char part[PATH_MAX];
    int fd = inside(path);
    for (size_t length = 1; fd < 0 && errno == ENOENT; length++) {
        if (path[length] && path[length] != '/') continue;
        snprintf(part, sizeof part, "%.*s", (int)length, path);
        if ((fd = inside(part)) < 0) make(part, folder || path[length]), fd = inside(part);
        if (!path[length]) break;
        close(fd), fd = -1, errno = ENOENT;
    }
    if (fd < 0) fail(125, "place", path);
    return fd;
}

static void protect(int fd, long how, long attributes, const char *path) {
    struct attributes change = {.set = attributes};
    if (syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH | how, &change, sizeof change) < 0) fail(125, "protect", path);
}

static void mount_in(const char *source, const char *path, const char *type, long flags, const char *options, long attributes) {
    char link[64];
    struct stat info = {.st_mode = S_IFDIR};
    if (!type && stat(source, &info) < 0) fail(125, "bind", source);
    int fd = place(path, S_ISDIR(info.st_mode));
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    if (mount(source, link, type, flags, options) < 0) fail(125, "mount", path);
    close(fd);
    if (!attributes) return;
    if ((fd = inside(path)) < 0) fail(125, "mount", path); /* again: now it is what was mounted */
    protect(fd, AT_RECURSIVE, attributes, path);
    close(fd);
}

/* Take *folder*, with *source* mounted there, as the new root. */
static void take_root(const char *source, const char *type, const char *options, const char *folder, long attributes) {
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) fail(125, "mount", "private");
    if (mount(source, folder, type, type ? 0 : MS_BIND | MS_REC, options) < 0) fail(125, "mount", "/");
    if ((root = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC)) < 0) fail(125, "open", folder);
    protect(root, AT_RECURSIVE, attributes, "/");
}

static void enter_root(void) {
    if (fchdir(root) < 0 || syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
        fail(125, "pivot", "/");
}

static void link_in(const char *text, const char *path) {
    char folder[PATH_MAX];
    const char *name = strrchr(path, '/') + 1;
    snprintf(folder, sizeof folder, "%.*s", (int)(name - path), path);
    int fd = place(folder, 1);
    if (symlinkat(text, fd, name) < 0 && errno != EEXIST) fail(125, "link", path);
    close(fd);
}

void loopback_up(void) {
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &request) < 0) fail(125, "network", "lo");
    close(fd);
}

static void load_filter(const char *path) {
    struct stat info;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &info) < 0 || !(filter.filter = malloc(info.st_size))) fail(125, "seccomp", path);
    if (read(fd, filter.filter, info.st_size) != info.st_size) fail(125, "seccomp", path);
    filter.len = info.st_size / sizeof(struct sock_filter);
    close(fd);
}

/* Become *uid* without any capability, for good. */
static void become(uid_t uid, gid_t gid) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[2] = {0};
    for (int capability = 0; prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0;) capability++;
    if (setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0) fail(125, "become", "user");
    if (syscall(SYS_capset, &header, none) < 0) fail(125, "drop", "capabilities");
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) fail(125, "set", "no_new_privs");
}

/* Die with the parent; it may have died before we asked. */
static void bind_life(void) {
    struct pollfd parent = {lifeline, 0, 0};
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    if (poll(&parent, 1, 0) > 0) _exit(137);
}

static void set_groups(char *list) {
    gid_t groups[64];
    size_t count = 0;
    for (char *word = strtok(list, ","); word && count < 64; word = strtok(NULL, ",")) groups[count++] = strtol(word, NULL, 10);
    if (setgroups(count, groups) < 0) fail(125, "set", "groups");
}

static void set_cpus(char *list) {
    cpu_set_t set;
    CPU_ZERO(&set);
    for (char *word = strtok(list, ","); word; word = strtok(NULL, ",")) CPU_SET(strtol(word, NULL, 10), &set);
    if (sched_setaffinity(0, sizeof set, &set) < 0) fail(125, "set", "cpus");
}

static void hand_out(int fd) {
    char room[CMSG_SPACE(sizeof fd)] = {0}, byte = 0;
    struct iovec data = {&byte, 1};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
    struct cmsghdr *part = CMSG_FIRSTHDR(&message);
    part->cmsg_level = SOL_SOCKET, part->cmsg_type = SCM_RIGHTS, part->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(part), &fd, sizeof fd);
    if (sendmsg(PASS_FD, &message, MSG_NOSIGNAL) < 0) fail(125, "hand out", "descriptor");
}

static void take_terminal(int rows, int columns) {
    struct winsize size = {.ws_row = rows, .ws_col = columns};
    int unlock = 0, slave, master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (master < 0 || ioctl(master, TIOCSPTLCK, &unlock) < 0) fail(125, "open", "terminal");
    if ((slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY)) < 0) fail(125, "open", "terminal");
    ioctl(master, TIOCSWINSZ, &size);
    hand_out(master);
    if (setsid() < 0 || ioctl(slave, TIOCSCTTY, 0) < 0) fail(125, "take", "terminal");
    for (int fd = 0; fd < 3; fd++) dup2(slave, fd);
}

static _Noreturn void dial(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0) fail(111, "dial", "port");
    hand_out(fd);
    _exit(0);
}

/* Wait for *child* in its stead: pass signals on and end as it ends. */
static _Noreturn void stand_for(pid_t child, sigset_t *all) {
    int status, null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = 0; fd < 3; fd++) dup2(null, fd);
    close(PASS_FD);
    for (;;) {
        int signal = sigwaitinfo(all, NULL);
        if (signal == SIGCHLD && waitpid(child, &status, WNOHANG) == child)
            _exit(WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
        if (signal > 0 && signal != SIGCHLD) kill(child, signal);
    }
}

/* Return the parent of *pid*. */
static pid_t parent_of(pid_t pid) {
    char path[32], text[256] = {0}, *end;
    int parent = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0 && read(fd, text, sizeof text - 1) > 0 && (end = strrchr(text, ')'))) sscanf(end, ") %*c %d", &parent);
    if (fd >= 0) close(fd);
    return parent;
}

/* Join the container whose first process is *pid*. That *shim* is its parent proves that the number was not given to another since. */
static void join(pid_t pid, pid_t shim, long namespaces, int stay) {
    sigset_t all, before;
    pid_t child;
    int life[2], target = syscall(SYS_pidfd_open, pid, 0);
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0); /* nobody in there may look at us on our way in */
    if (target >= 0 && parent_of(pid) != shim) target = -1, errno = ESRCH;
    if (target < 0 || setns(target, namespaces) < 0) fail(125, "join", "container");
    close(target);
    if (!stay) return;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &before);
    if (pipe2(life, O_CLOEXEC) < 0 || (child = fork()) < 0) fail(125, "fork", "process");
    if (child) close(life[0]), stand_for(child, &all);
    close(life[1]), lifeline = life[0];
    sigprocmask(SIG_SETMASK, &before, NULL);
}

static _Noreturn void execute(struct plan *plan) {
    static char *argv[65536];
    int count = 0;
    sigset_t none;
    while (plan->at < plan->end && count < 65535) argv[count++] = next_word(plan);
    if (plan->at < plan->end) errno = E2BIG, fail(126, "exec", argv[0]);
    for (int signal = 1; signal < NSIG; signal++) (void)sigaction(signal, &(struct sigaction){.sa_handler = SIG_DFL}, NULL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    syscall(SYS_close_range, 3, ~0U, 4 /* CLOSE_RANGE_CLOEXEC */);
    if (filter.len && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) < 0) fail(125, "seccomp", "filter");
    execvp(argv[0], argv);
    fail(errno == ENOENT ? 127 : 126, "exec", argv[0]);
}

_Noreturn void follow(struct plan plan) {
    for (;;) {
        char *op = next_word(&plan), *a, *b, *c, *d;
#define IS(name) (strcmp(op, name) == 0)
#define TWO (a = next_word(&plan), b = next_word(&plan))
#define FOUR (TWO, c = next_word(&plan), d = next_word(&plan))
        if (IS("group")) open_door(next_word(&plan));
        else if (IS("enter")) enter_groups();
        else if (IS("rlimit")) TWO, c = next_word(&plan), setrlimit(atoi(a), &(struct rlimit){strtoul(b, NULL, 10), strtoul(c, NULL, 10)});
        else if (IS("cpus")) set_cpus(next_word(&plan));
        else if (IS("unshare")) { if (unshare(number(&plan)) < 0) fail(125, "unshare", "namespace"); }
        else if (IS("root")) FOUR, take_root(a, *b ? b : NULL, c, d, number(&plan));
        else if (IS("bind")) TWO, mount_in(a, b, NULL, MS_BIND | MS_REC, NULL, number(&plan));
        else if (IS("mount")) TWO, c = next_word(&plan), mount_in(a, b, a, MS_NOSUID | MS_NOEXEC * !strcmp(a, "proc"), c, number(&plan));
        else if (IS("folder")) close(place(next_word(&plan), 1));
        else if (IS("hostname")) { a = next_word(&plan); if (sethostname(a, strlen(a)) < 0) fail(125, "set", "hostname"); }
        else if (IS("loopback")) loopback_up();
        else if (IS("pivot")) enter_root();
        else if (IS("symlink")) TWO, link_in(a, b);
        else if (IS("readonly")) protect(root, 0, 1, next_word(&plan));
        else if (IS("seccomp")) load_filter(next_word(&plan));
        else if (IS("join")) TWO, c = next_word(&plan), join(atoi(a), atoi(b), atol(c), number(&plan));
        else if (IS("groups")) set_groups(next_word(&plan));
        else if (IS("user")) TWO, become(atol(a), atol(b));
        else if (IS("bound")) bind_life();
        else if (IS("env")) putenv(next_word(&plan));
        else if (IS("workdir")) { a = next_word(&plan); if (chdir(a) < 0) fail(126, "chdir", a); }
        else if (IS("terminal")) TWO, take_terminal(atoi(a), atoi(b));
        else if (IS("dial")) dial(number(&plan));
        else if (IS("exec")) execute(&plan);
        else errno = EINVAL, fail(125, "plan", op);
    }
}
