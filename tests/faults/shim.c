/* Disturbs the n-th system call of this process that concerns a file below a folder.
 *
 * After arm(), the kernel hands each system call of the table below to on_call() instead of executing it (a
 * seccomp filter that raises SIGSYS). So nothing can be missed: not libc's own calls within fopen() or fwrite(),
 * not those of Rust or of assembler. on_call() executes the call itself, from the one address that the filter
 * lets through, unless it is the one to disturb.
 *
 * The plan, the count and the trace are in memory that the process shares with the one that asked, which reads
 * them even after a SIGKILL. server.py mirrors `struct plan`. x86-64 Linux only.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <ucontext.h>
#include <unistd.h>

enum kind { CREATE, WRITE, NAME, SYNC, OPEN, READ, MAP, LOCK, CLOSE, STAT };
enum action { NOTHING, FAIL, FAIL_FROM_THERE, SHORT, KILL, KILL_AFTER };

struct plan {
    int64_t kinds;  /* the kinds that are counted: bit 1 << kind */
    int64_t at;     /* number of the call to disturb, from 1 */
    int64_t action;
    int64_t error; /* errno, of FAIL and FAIL_FROM_THERE */
    _Atomic int64_t count;
    _Atomic int64_t traced;  /* bytes of the trace, or more if it was too long */
    char folder[4096];
    char trace[1 << 20]; /* a line for each call that was counted */
};

static struct plan *plan;

/* Which arguments say what the call is about. */
enum about {
    FD,      /* (fd, ...) */
    PATH,    /* (path, ...) */
    AT,      /* (fd of a folder, path, ...) */
    PATHS,   /* (path, path) */
    ATS,     /* (fd, path, fd, path) */
    AT_LAST, /* (path, fd, path): symlinkat */
    FD_2,    /* (x, x, fd, ...): where copy_file_range writes */
    FD_4,    /* (x, x, x, x, fd, x): mmap */
};

#define CALL(name, kind, about) {SYS_##name, #name, kind, about}

static const struct call {
    int number;
    const char *name;
    enum kind kind;
    enum about about;
} calls[] = {
    CALL(open, OPEN, PATH),
    CALL(openat, OPEN, AT),
    CALL(openat2, OPEN, AT),
    CALL(creat, CREATE, PATH),
    CALL(write, WRITE, FD),
    CALL(pwrite64, WRITE, FD),
    CALL(writev, WRITE, FD),
    CALL(pwritev, WRITE, FD),
    CALL(pwritev2, WRITE, FD),
    CALL(copy_file_range, WRITE, FD_2),
    CALL(sendfile, WRITE, FD),
    CALL(ftruncate, WRITE, FD),
    CALL(truncate, WRITE, PATH),
    CALL(fallocate, WRITE, FD),
    CALL(rename, NAME, PATHS),
    CALL(renameat, NAME, ATS),
    CALL(renameat2, NAME, ATS),
    CALL(link, NAME, PATHS),
    CALL(linkat, NAME, ATS),
    CALL(symlink, NAME, PATHS),
    CALL(symlinkat, NAME, AT_LAST),
    CALL(unlink, NAME, PATH),
    CALL(unlinkat, NAME, AT),
    CALL(mkdir, NAME, PATH),
    CALL(mkdirat, NAME, AT),
    CALL(rmdir, NAME, PATH),
    CALL(chmod, NAME, PATH),
    CALL(fchmod, NAME, FD),
    CALL(fchmodat, NAME, AT),
    CALL(utimensat, NAME, AT),
    CALL(fsync, SYNC, FD),
    CALL(fdatasync, SYNC, FD),
    CALL(read, READ, FD),
    CALL(pread64, READ, FD),
    CALL(readv, READ, FD),
    CALL(preadv, READ, FD),
    CALL(preadv2, READ, FD),
    CALL(getdents64, READ, FD),
    CALL(fadvise64, READ, FD), /* reads ahead */
    CALL(mmap, MAP, FD_4),
    CALL(flock, LOCK, FD),
    CALL(close, CLOSE, FD),
    CALL(stat, STAT, PATH),
    CALL(lstat, STAT, PATH),
    CALL(fstat, STAT, FD),
    CALL(newfstatat, STAT, AT),
    CALL(statx, STAT, AT),
    CALL(access, STAT, PATH),
    CALL(faccessat, STAT, AT),
    CALL(faccessat2, STAT, AT),
    CALL(readlink, STAT, PATH),
    CALL(readlinkat, STAT, AT),
};
enum { CALLS = sizeof calls / sizeof *calls };

/* execute(number, six arguments): the result, or -errno. The filter knows the address `executed`. */
long execute(long number, long a, long b, long c, long d, long e, long f);
extern const char executed[];
__asm__(".text\n"
        ".type execute, @function\n"
        "execute:\n"
        "    mov %rdi, %rax\n"
        "    mov %rsi, %rdi\n"
        "    mov %rdx, %rsi\n"
        "    mov %rcx, %rdx\n"
        "    mov %r8, %r10\n"
        "    mov %r9, %r8\n"
        "    mov 8(%rsp), %r9\n"
        "    syscall\n"
        "executed:\n"
        "    ret\n");

static long again(const struct call *call, const long a[6]) {
    return execute(call->number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

/* Appends to a text of `size` bytes that ends in 0; what does not fit is cut off. */
static void add(char *text, size_t size, const char *more) {
    size_t used = strlen(text);
    strncpy(text + used, more, size - used - 1);
    text[size - 1] = 0;
}

enum { PATH_SIZE = 4096 };

static void path_of_fd(int fd, char *path) {
    char link[32] = "/proc/self/fd/", digits[12], *digit = digits + sizeof digits - 1;
    *path = *digit = 0;
    if (fd == AT_FDCWD) {
        strcpy(link, "/proc/self/cwd");
    } else {
        if (fd < 0)
            return;
        do
            *--digit = (char)('0' + fd % 10);
        while (fd /= 10);
        strcat(link, digit);
    }
    long length = execute(SYS_readlink, (long)link, (long)path, PATH_SIZE - 1, 0, 0, 0);
    path[length > 0 ? length : 0] = 0;
}

static void path_at(int folder, const char *name, char *path) {
    *path = 0;
    if (name == NULL) /* fstat by statx(fd, NULL) */
        name = "";
    if (*name != '/') {
        path_of_fd(folder, path);
        if (*name)
            add(path, PATH_SIZE, "/");
    }
    add(path, PATH_SIZE, name);
}

/* Finds the paths that a call is about; the second is empty unless there are two. */
static void paths_of(const struct call *call, const long a[6], char *path, char *second) {
    *second = 0;
    switch (call->about) {
    case FD: path_of_fd((int)a[0], path); break;
    case PATH: path_at(AT_FDCWD, (const char *)a[0], path); break;
    case AT: path_at((int)a[0], (const char *)a[1], path); break;
    case PATHS:
        path_at(AT_FDCWD, (const char *)a[0], path);
        path_at(AT_FDCWD, (const char *)a[1], second);
        break;
    case ATS:
        path_at((int)a[0], (const char *)a[1], path);
        path_at((int)a[2], (const char *)a[3], second);
        break;
    case AT_LAST: path_at((int)a[1], (const char *)a[2], path); break;
    case FD_2: path_of_fd((int)a[2], path); break;
    case FD_4: path_of_fd((int)a[4], path); break;
    }
}

static bool below(const char *path) {
    size_t length = strlen(plan->folder);
    return !strncmp(path, plan->folder, length) && (path[length] == '/' || path[length] == 0);
}

static enum kind kind_of(const struct call *call, const long a[6]) {
    if (call->kind != OPEN)
        return call->kind;
    long flags = call->number == SYS_open     ? a[1]
                 : call->number == SYS_openat ? a[2]
                                              : *(const long *)a[2]; /* struct open_how */
    return flags & (O_CREAT | O_TRUNC) ? CREATE : OPEN;
}

/* Reads or writes half of what was asked for, as at a full disk, a quota, a signal or a network's end. */
static long half(const struct call *call, const long a[6]) {
    long b[6] = {a[0], a[1], a[2], a[3], a[4], a[5]};
    const struct iovec *first = (const struct iovec *)a[1];
    switch (call->number) {
    case SYS_readv: return execute(SYS_read, a[0], (long)first->iov_base, (long)(first->iov_len + 1) / 2, 0, 0, 0);
    case SYS_writev: return execute(SYS_write, a[0], (long)first->iov_base, (long)(first->iov_len + 1) / 2, 0, 0, 0);
    case SYS_read:
    case SYS_write:
    case SYS_pread64:
    case SYS_pwrite64: b[2] = (a[2] + 1) / 2; break;
    case SYS_sendfile: b[3] = (a[3] + 1) / 2; break;
    case SYS_copy_file_range: b[4] = (a[4] + 1) / 2; break;
    default: break; /* it has no size */
    }
    return again(call, b);
}

static _Noreturn void die(void) {
    execute(SYS_kill, execute(SYS_getpid, 0, 0, 0, 0, 0, 0), SIGKILL, 0, 0, 0, 0);
    for (;;)
        ;
}

static long answer(const struct call *call, const long a[6]) {
    if (!(plan->kinds & 1L << kind_of(call, a)))
        return again(call, a);
    char path[PATH_SIZE], second[PATH_SIZE], line[2 * PATH_SIZE + 64] = "";
    paths_of(call, a, path, second);
    if (!below(path) && !below(second))
        return again(call, a);

    add(line, sizeof line, call->name);
    add(line, sizeof line, " ");
    add(line, sizeof line, path);
    if (*second) {
        add(line, sizeof line, " -> ");
        add(line, sizeof line, second);
    }
    add(line, sizeof line, "\n");
    int64_t number = ++plan->count, length = (int64_t)strlen(line), end = plan->traced += length;
    if (end <= (int64_t)sizeof plan->trace)
        memcpy(plan->trace + end - length, line, (size_t)length);

    if (number != plan->at && !(plan->action == FAIL_FROM_THERE && number > plan->at))
        return again(call, a);
    switch (plan->action) {
    case FAIL:
    case FAIL_FROM_THERE:
        if (call->kind == CLOSE) /* it is closed even then */
            again(call, a);
        return -plan->error;
    case SHORT: return half(call, a);
    case KILL: die();
    case KILL_AFTER: again(call, a); die();
    default: return again(call, a);
    }
}

/* Does what rt_sigprocmask(how, set, old) asks for, except for SIGSYS: a thread that blocks all signals, as
 * those of allocators do, would be killed by its next call. */
static long change_mask(const long a[6], uint64_t *mask) {
    uint64_t before = *mask;
    if (a[1]) {
        uint64_t set = *(const uint64_t *)a[1];
        switch (a[0]) {
        case SIG_BLOCK: *mask |= set; break;
        case SIG_UNBLOCK: *mask &= ~set; break;
        case SIG_SETMASK: *mask = set; break;
        default: return -EINVAL;
        }
        *mask &= ~(1UL << (SIGSYS - 1));
    }
    if (a[2])
        *(uint64_t *)a[2] = before;
    return 0;
}

static void on_call(int signal, siginfo_t *info, void *context) {
    (void)signal;
    greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
    const long arguments[6] = {r[REG_RDI], r[REG_RSI], r[REG_RDX], r[REG_R10], r[REG_R8], r[REG_R9]};
    if (info->si_syscall == SYS_rt_sigprocmask) /* returning from here makes it the thread's mask */
        r[REG_RAX] = change_mask(arguments, (uint64_t *)&((ucontext_t *)context)->uc_sigmask);
    for (const struct call *call = calls; call < calls + CALLS; call++)
        if (call->number == info->si_syscall)
            r[REG_RAX] = answer(call, arguments);
}

#define FIELD(name) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, name))
#define FIELD_HIGH(name) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, name) + 4)
#define SKIP_IF(value, if_equal, if_not) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, if_equal, if_not)
#define RETURN(what) BPF_STMT(BPF_RET | BPF_K, what)

/* From now on all calls of this process below plan->folder are counted. Returns 0, or errno. */
int arm(struct plan *given) {
    plan = given;
    struct sigaction action = {.sa_sigaction = on_call, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_RESTART};
    if (sigaction(SIGSYS, &action, NULL))
        return errno;
    uint64_t address = (uint64_t)executed;
    struct sock_filter filter[14 + 2 * CALLS] = {
        FIELD(arch),
        SKIP_IF(AUDIT_ARCH_X86_64, 1, 0),
        RETURN(SECCOMP_RET_ALLOW),
        FIELD(instruction_pointer),
        SKIP_IF((uint32_t)address, 0, 3),
        FIELD_HIGH(instruction_pointer),
        SKIP_IF((uint32_t)(address >> 32), 0, 1),
        RETURN(SECCOMP_RET_ALLOW),
        FIELD(nr),
        SKIP_IF(SYS_rt_sigprocmask, 0, 1),
        RETURN(SECCOMP_RET_TRAP),
    };
    unsigned short used = 11;
    for (int i = 0; i < CALLS; i++) {
        if (calls[i].about == FD_4)
            continue; /* below */
        filter[used++] = (struct sock_filter)SKIP_IF((uint32_t)calls[i].number, 0, 1);
        filter[used++] = (struct sock_filter)RETURN(SECCOMP_RET_TRAP);
    }
    /* Memory without a file is left alone: it is asked for where all signals are blocked. */
    const struct sock_filter tail[] = {
        SKIP_IF(SYS_mmap, 0, 2), FIELD(args[4]), SKIP_IF(0xffffffff, 0, 1), RETURN(SECCOMP_RET_ALLOW),
        RETURN(SECCOMP_RET_TRAP),
    };
    memcpy(filter + used, tail, sizeof tail);
    struct sock_fprog program = {(unsigned short)(used + sizeof tail / sizeof *tail), filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
        return errno;
    return 0;
}
