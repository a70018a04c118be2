/*
 * The shim: one small process for each container, detached from whoever started it.
 *
 *   sandbox run FOLDER   start the container of FOLDER/plan; return 0 once its first process runs, or say on stderr why not
 *   sandbox do FD        carry out the plan in FD as this process (exec into a container, dial a port)
 *   sandbox hold FOLDER UIDS GIDS
 *                        keep a network namespace, which the containers of one session share or are connected in, until killed
 *
 * It holds a POSIX lock on FOLDER/lock for life, appends the output to FOLDER/log in frames (stream, three zeros, length as a
 * little-endian 32-bit number, data), and at the end puts `CODE OOM TIME` into FOLDER/exit, whole or not at all.
 * A plan begins with the flags of clone, how much output to keep, the maps of uids and gids, a file that tells of OOM kills, and
 * slirp4netns; all but the first two may be empty. With a session's network the flags are followed, in the same word, by the pid of
 * who holds it (0: the node's own network), the inode of that namespace, and a script that connects the container, whose pid is $1.
 */

#define _GNU_SOURCE
#include "jail.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char buffer[65536];
static int log_fd;
static off_t log_limit;

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

/* Put a line into a file of the folder, whole or not at all. */
static void record(const char *name, const char *line) {
    char fresh[32];
    snprintf(fresh, sizeof fresh, "%s.tmp", name);
    for (int tries = 0; tries < 600; tries++) { /* a full disk may be emptied: ten minutes */
        int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        int whole = fd >= 0 && write(fd, line, strlen(line)) == (ssize_t)strlen(line);
        if (fd >= 0) close(fd);
        if ((whole && rename(fresh, name) == 0) || errno == ENOENT) return; /* or the folder was deleted */
        sleep(1);
    }
}

/* Return how often the kernel killed for memory, by a file with a line `oom_kill N`. */
static long oom_kills(const char *path) {
    char text[1024], *found;
    int fd = *path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    ssize_t size = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    if (fd >= 0) close(fd);
    text[size > 0 ? size : 0] = 0;
    found = strstr(text, "oom_kill ");
    return found ? atol(found + 9) : 0;
}

/* Move what is in a pipe to the log. Return 0 at its end. */
static int move(int from, unsigned char stream) {
    unsigned char head[8] = {stream};
    ssize_t size = read(from, buffer, sizeof buffer);
    if (size <= 0) return size < 0 && (errno == EAGAIN || errno == EINTR);
    unsigned length = size;
    for (int i = 0; i < 4; i++) head[4 + i] = length >> 8 * i;
    struct iovec parts[2] = {{head, sizeof head}, {buffer, size}};
    off_t before = lseek(log_fd, 0, SEEK_END);
    if (before > log_limit) return 1; /* read and dropped, so that the container goes on */
    while (writev(log_fd, parts, 2) != (ssize_t)sizeof head + size) { /* a full disk holds the container up, as a full pipe does */
        if (ftruncate(log_fd, before) < 0) return 0;
        sleep(1);
    }
    return 1;
}

static int is_empty(int fd) {
    struct pollfd one = {fd, POLLIN, 0};
    return poll(&one, 1, 0) <= 0 || !(one.revents & POLLIN);
}

static void map_users(pid_t pid, const char *uids, const char *gids) {
    const char *names[] = {"setgroups", "uid_map", "gid_map"}, *texts[] = {"deny", uids, gids};
    char path[32];
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "/proc/%d/%s", pid, names[i]);
        put(path, texts[i]);
    }
}

/* Give the container's network a way out; what slirp4netns says goes to a file of its name. Return its pid, or -1. */
static pid_t let_out(const char *program, pid_t pid, int as_root, int *keep) {
    int ready[2], life[2];
    char target[16], ready_fd[16], exit_fd[16], byte;
    if (pipe2(ready, 0) < 0 || pipe2(life, 0) < 0) return -1;
    fcntl(life[1], F_SETFD, FD_CLOEXEC);
    fcntl(ready[0], F_SETFD, FD_CLOEXEC);
    pid_t child = fork();
    if (child == 0) {
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        /* What it unmounts for its own sandbox would be gone from the node, too: the namespaces that `ip netns` keeps below /run. */
        if (as_root && (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)) _exit(127);
        int said = open("slirp4netns", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        dup2(said, 1), dup2(said, 2);
        snprintf(target, sizeof target, "%d", pid);
        snprintf(ready_fd, sizeof ready_fd, "%d", ready[1]);
        snprintf(exit_fd, sizeof exit_fd, "%d", life[0]);
        execl(program, program, "--configure", "--mtu=65520", "--disable-host-loopback", "--enable-seccomp", "--ready-fd", ready_fd,
              "--exit-fd", exit_fd, target, "tap0", as_root ? "--enable-sandbox" : NULL, NULL); /* that needs a uid 0 inside */
        _exit(127);
    }
    close(ready[1]), close(life[0]);
    *keep = life[1];
    ssize_t got = child < 0 ? 0 : read(ready[0], &byte, 1);
    close(ready[0]);
    return got == 1 ? child : -1;
}

/* Connect the container *child*, from within the network that holds the session together. */
static void connect_to(const char *script, pid_t child) {
    char pid[16];
    int status = 0;
    snprintf(pid, sizeof pid, "%d", child);
    pid_t shell = fork();
    if (shell == 0) {
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        dup2(complain_to, 2);
        execl("/bin/sh", "sh", "-c", script, "sh", pid, NULL);
        _exit(127);
    }
    if (shell > 0 && waitpid(shell, &status, 0) == shell && status == 0) return;
    kill(child, SIGKILL);
    errno = ECONNABORTED;
    fail(125, "connect", "network");
}

/* Clone a first process. Where it belongs to a session's network, *net*, somebody else goes in there and clones it, as our child. */
static pid_t begin(long flags, const char *net, const char *uids, const char *gids) {
    int holder, at = 0, told[2], space = -1;
    unsigned long inode;
    struct stat info;
    char path[32];
    pid_t child = -1;
    if (sscanf(net, " %d %lu %n", &holder, &inode, &at) < 2) return syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);
    if (pipe2(told, O_CLOEXEC) < 0) return -1;
    pid_t guide = fork();
    if (guide == 0) {
        if (holder) {
            snprintf(path, sizeof path, "/proc/%d/ns/net", holder);
            space = syscall(SYS_pidfd_open, holder, 0);
            if (space < 0 || stat(path, &info) < 0 || info.st_ino != inode || setns(space, CLONE_NEWNET | (*uids ? CLONE_NEWUSER : 0)) < 0)
                fail(125, "join", "network");
        }
        child = syscall(SYS_clone, flags | CLONE_PARENT | SIGCHLD, 0, 0, 0, 0);
        if (child == 0) return 0;
        if (child < 0) fail(125, "clone", "namespaces");
        if (*uids) map_users(child, uids, gids);
        if (net[at]) connect_to(net + at, child);
        _exit(write(told[1], &child, sizeof child) != sizeof child);
    }
    close(told[1]);
    if (guide < 0 || read(told[0], &child, sizeof child) != sizeof child) _exit(125); /* it has said why */
    close(told[0]);
    waitpid(guide, NULL, 0);
    return child;
}

/* Copy out and err to the log until the container has ended and both are empty; return its wait status. */
static int watch(pid_t pid, int out, int err, int signals) {
    struct pollfd polls[3] = {{out, POLLIN, 0}, {err, POLLIN, 0}, {signals, POLLIN, 0}};
    int status = 0, ended = 0, other;
    while (!ended || !is_empty(out) || !is_empty(err)) {
        if (poll(polls, 3, ended ? 0 : -1) < 0 && errno != EINTR) break;
        for (int i = 0; i < 2; i++)
            if (polls[i].revents && !move(polls[i].fd, i + 1)) polls[i].fd = -1;
        if (!polls[2].revents) continue;
        (void)!read(signals, buffer, sizeof(struct signalfd_siginfo));
        for (pid_t gone; (gone = waitpid(-1, &other, WNOHANG)) > 0;)
            if (gone == pid) status = other, ended = 1;
    }
    return status;
}

/* Be the shim of one container. *ready* takes `ok`, or why it cannot be started. */
static int look_after(struct plan plan, int ready) {
    int out[2], err[2], said[2], go[2], keep = -1, status;
    char line[128];
    char *net = next_word(&plan);
    long flags = strtol(net, &net, 10);
    log_limit = atol(next_word(&plan));
    char *uids = next_word(&plan), *gids = next_word(&plan), *oom = next_word(&plan), *slirp = next_word(&plan);
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    int signals = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
    log_fd = open("log", O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log_fd < 0 || signals < 0 || pipe2(out, O_CLOEXEC) < 0 || pipe2(err, O_CLOEXEC) < 0 || pipe2(said, O_CLOEXEC) < 0 ||
        pipe2(go, O_CLOEXEC) < 0)
        fail(125, "open", "log");
    pid_t pid = begin(flags, net, uids, gids);
    if (pid < 0) fail(125, "clone", "namespaces");
    if (pid == 0) {
        complain_to = said[1];
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(go[1]), lifeline = go[0];
        (void)!read(lifeline, line, 1);
        setsid();
        dup2(out[1], 1), dup2(err[1], 2);
        follow(plan);
    }
    close(out[1]), close(err[1]), close(said[1]), close(go[0]);
    if (*uids && !*net) map_users(pid, uids, gids); /* before slirp4netns, which joins the user namespace */
    if (*slirp && let_out(slirp, pid, !*uids, &keep) < 0) {
        dprintf(ready, "slirp4netns %s: it did not start\n", slirp);
        kill(pid, SIGKILL);
        return 125;
    }
    (void)!write(go[1], "", 1);
    ssize_t size = read(said[0], buffer, 4096);
    if (size > 0) { /* it ends by itself */
        (void)!write(ready, buffer, size);
        return 125;
    }
    snprintf(line, sizeof line, "%d %.3f\n", pid, now());
    record("running", line);
    (void)!write(ready, "ok", 2);
    close(ready);
    status = watch(pid, out[0], err[0], signals);
    long kills = oom_kills(oom);
    snprintf(line, sizeof line, "%d %ld %.3f\n", WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status), kills, now());
    record("exit", line);
    return 0;
}

/* Leave a process behind that holds the folder's lock, and wait for its word. Return in it where to say that; else end. */
static int detach(const char *folder) {
    int ready[2];
    if (chdir(folder) < 0 || pipe2(ready, O_CLOEXEC) < 0) fail(125, "enter", folder);
    pid_t child = fork();
    if (child < 0) fail(125, "fork", "shim");
    if (child) {
        size_t size = 0;
        close(ready[1]);
        for (ssize_t got; size < sizeof buffer && (got = read(ready[0], buffer + size, sizeof buffer - size)) > 0;) size += got;
        if (size == 2 && memcmp(buffer, "ok", 2) == 0) _exit(0);
        (void)!write(2, size ? buffer : "shim: it died\n", size ? size : 14);
        _exit(125);
    }
    setsid();
    complain_to = ready[1];
    int null = open("/dev/null", O_RDWR | O_CLOEXEC), lock = open("lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    for (int fd = 0; fd < 3; fd++) dup2(null, fd);
    if (lock < 0 || fcntl(lock, F_SETLK, &(struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET}) < 0) {
        if (errno == EAGAIN || errno == EACCES) _exit(write(ready[1], "ok", 2) != 2); /* it runs already */
        fail(125, "open", "lock");
    }
    return ready[1];
}

static int hold(const char *folder, const char *uids, const char *gids) {
    int ready = detach(folder);
    if (unshare(CLONE_NEWNET | (*uids ? CLONE_NEWUSER : 0)) < 0) fail(125, "clone", "namespaces");
    if (*uids) map_users(getpid(), uids, gids);
    loopback_up();
    if (write(ready, "ok", 2) != 2) return 125;
    close(ready);
    for (;;) pause();
}

static int run(const char *folder) {
    int ready = detach(folder);
    if (access("exit", F_OK) == 0) return write(ready, "ok", 2) != 2; /* it has run already */
    int plan = open("plan", O_RDONLY | O_CLOEXEC);
    return look_after(read_plan(plan), ready);
}

int main(int argc, char **argv) {
    umask(022);
    if (argc == 3 && strcmp(argv[1], "run") == 0) return run(argv[2]);
    if (argc == 3 && strcmp(argv[1], "do") == 0) follow(read_plan(atoi(argv[2])));
    if (argc == 5 && strcmp(argv[1], "hold") == 0) return hold(argv[2], argv[3], argv[4]);
    dprintf(2, "usage: sandbox run FOLDER | sandbox do FD | sandbox hold FOLDER UIDS GIDS\n");
    return 64;
}
