/* Preloaded, it makes a range of bytes of one file unreadable, as a bad sector is: reads of it fail with EIO.
 * BAD_BLOCK is "FIRST:LAST:PATH". */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>

static int is_bad(int fd, size_t count, off_t offset) {
    long long first, last;
    int name = 0;
    struct stat file, open;
    const char *block = getenv("BAD_BLOCK");
    return block && sscanf(block, "%lld:%lld:%n", &first, &last, &name) == 2 && !stat(block + name, &file) &&
           !fstat(fd, &open) && open.st_dev == file.st_dev && open.st_ino == file.st_ino && offset <= last &&
           offset + (off_t)count > first;
}

ssize_t pread64(int fd, void *buffer, size_t count, off_t offset) {
    static ssize_t (*next)(int, void *, size_t, off_t);
    if (!next) next = dlsym(RTLD_NEXT, "pread64");
    if (is_bad(fd, count, offset)) return errno = EIO, -1;
    return next(fd, buffer, count, offset);
}

ssize_t preadv2(int fd, const struct iovec *parts, int count, off_t offset, int flags) {
    static ssize_t (*next)(int, const struct iovec *, int, off_t, int);
    if (!next) next = dlsym(RTLD_NEXT, "preadv2");
    size_t length = 0;
    for (int i = 0; i < count; i++) length += parts[i].iov_len;
    if (is_bad(fd, length, offset)) return errno = EIO, -1;
    return next(fd, parts, count, offset, flags);
}

ssize_t preadv64v2(int fd, const struct iovec *parts, int count, off_t offset, int flags) {
    return preadv2(fd, parts, count, offset, flags);
}

ssize_t preadv64(int fd, const struct iovec *parts, int count, off_t offset) {
    return preadv2(fd, parts, count, offset, 0);
}
