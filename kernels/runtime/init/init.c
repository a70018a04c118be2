/*
 * The first process of a container: static, without libc, a few KiB.
 *
 *   init               idle; reap orphans; end with 0 on SIGTERM or SIGINT
 *   init -- ARGV...    run ARGV (looked up in PATH), pass signals on to it, reap orphans and end with its status:
 *                      128 + n for a death by signal n; 127 when there is no such program and 126 when it cannot be run, and it
 *                      says so on stderr
 *
 * Build: cc -Os -static -nostdlib -ffreestanding -fno-builtin -fno-stack-protector -fno-pie -no-pie -o init init.c
 */

#include <asm/unistd.h>
#include <linux/errno.h>
#include <linux/fcntl.h>
#include <linux/prctl.h>
#include <linux/signal.h>
#include <linux/wait.h>

typedef unsigned long mask_t; /* the kernel's own signal set: 64 bits on both machines */

#if defined(__x86_64__)
__asm__(".globl _start\n_start:\n xor %ebp,%ebp\n mov %rsp,%rdi\n and $-16,%rsp\n call begin\n");
static long call(long number, long a, long b, long c, long d, long e) {
    register long r10 __asm__("r10") = d, r8 __asm__("r8") = e;
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8) : "rcx", "r11", "memory");
    return result;
}
#elif defined(__aarch64__)
__asm__(".globl _start\n_start:\n mov x29,#0\n mov x0,sp\n bl begin\n");
static long call(long number, long a, long b, long c, long d, long e) {
    register long x8 __asm__("x8") = number, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d, x4 __asm__("x4") = e;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
    return x0;
}
#else
#error "init supports x86_64 and aarch64"
#endif

static _Noreturn void leave(int status) {
    for (;;) call(__NR_exit_group, status, 0, 0, 0, 0);
}

static void set_mask(mask_t mask) {
    call(__NR_rt_sigprocmask, SIG_SETMASK, (long)&mask, 0, sizeof mask, 0);
}

static int has_slash(const char *text) {
    while (*text && *text != '/') text++;
    return *text == '/';
}

/* Return the value of PATH in the environment, or the usual one. */
static const char *search_path(char **env) {
    for (; *env; env++)
        if ((*env)[0] == 'P' && (*env)[1] == 'A' && (*env)[2] == 'T' && (*env)[3] == 'H' && (*env)[4] == '=') return *env + 5;
    return "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
}

/* Execute argv like execvp and return the error that names the cause best. */
static long execute(char **argv, char **env) {
    static char full[4096];
    long error = -ENOENT;
    const char *path = search_path(env);
    if (!*argv[0]) return error;
    if (has_slash(argv[0])) {
        error = call(__NR_execve, (long)argv[0], (long)argv, (long)env, 0, 0);
        return error == -ENOENT && call(__NR_faccessat, AT_FDCWD, (long)argv[0], 0, 0, 0) == 0 ? -ELIBACC : error;
    }
    for (;;) {
        unsigned long n = 0;
        const char *name = argv[0];
        for (; *path && *path != ':' && n < sizeof full - 2; path++) full[n++] = *path;
        if (n) full[n++] = '/';
        while (*name && n < sizeof full - 1) full[n++] = *name++;
        full[n] = 0;
        if (!*name) {
            long result = call(__NR_execve, (long)full, (long)argv, (long)env, 0, 0);
            if (result != -ENOENT && result != -ENOTDIR) error = result;
        }
        while (*path && *path != ':') path++;
        if (!*path++) return error;
    }
}

static void say(const char *text) {
    unsigned long length = 0;
    while (text[length]) length++;
    call(__NR_write, 2, (long)text, length, 0, 0);
}

static const char *explain(long error) {
    switch (-error) {
    case ENOENT: return ": there is no such program\n";
    case ELIBACC: return ": cannot be run: the interpreter or loader that it names is not there\n";
    case EACCES: return ": cannot be run: it is no program, or this user may not run it\n";
    case ENOEXEC: return ": cannot be run: it is no program of this machine, and has no #! line\n";
    case E2BIG: return ": cannot be run: the arguments and the environment are too large\n";
    default: return ": cannot be run\n";
    }
}

static long spawn(char **argv, char **env, mask_t mask) {
    long child = call(__NR_clone, SIGCHLD, 0, 0, 0, 0);
    if (child) return child;
    set_mask(mask);
    child = execute(argv, env);
    say(argv[0]);
    say(explain(child));
    leave(child == -ENOENT ? 127 : 126);
}

/* Reap whatever has ended; leave with the status of our own child once it is among it. */
static void reap(long child) {
    int status;
    long pid;
    while ((pid = call(__NR_wait4, -1, (long)&status, WNOHANG, 0, 0)) > 0)
        if (pid == child) leave(status & 0x7f ? 128 + (status & 0x7f) : status >> 8 & 0xff);
}

_Noreturn __attribute__((used)) void begin(long *stack) {
    long count = stack[0], child = 0;
    char **argv = (char **)(stack + 1), **env = argv + count + 1;
    mask_t all = ~0UL, before = 0;
    /* Blocked signals are queued even for PID 1, which the kernel otherwise shields from signals that it does not handle. */
    call(__NR_rt_sigprocmask, SIG_SETMASK, (long)&all, (long)&before, sizeof all, 0);
    call(__NR_prctl, PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    if (count > 1) {
        if (count < 3 || argv[1][0] != '-' || argv[1][1] != '-' || argv[1][2]) leave(125);
        child = spawn(argv + 2, env, before);
        if (child < 0) leave(126);
    }
    for (;;) {
        long signal = call(__NR_rt_sigtimedwait, (long)&all, 0, 0, sizeof all, 0);
        if (signal == SIGCHLD) reap(child);
        else if (signal > 0 && child) call(__NR_kill, child, signal, 0, 0, 0);
        else if (signal == SIGTERM || signal == SIGINT) leave(0);
    }
}
