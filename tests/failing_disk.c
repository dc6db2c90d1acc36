/* Preloaded into a test process: makes writes to and syncs of a write-ahead log fail.
 *
 * fail_syncs(n)         the next n syncs of a file named *-wal fail with EIO
 * fail_writes(skip, n)  after `skip` more writes to it, n writes fail with EIO
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static int syncs_to_fail, writes_to_skip, writes_to_fail;

void fail_syncs(int count) { syncs_to_fail = count; }

void fail_writes(int skip, int count) { writes_to_skip = skip; writes_to_fail = count; }

static int is_log(int file)
{
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    return length > 4 && memcmp(path + length - 4, "-wal", 4) == 0;
}

static int sync_fails(int file)
{
    if (syncs_to_fail <= 0 || !is_log(file))
        return 0;
    syncs_to_fail--;
    errno = EIO;
    return 1;
}

static int write_fails(int file)
{
    if (writes_to_fail <= 0 || !is_log(file) || writes_to_skip-- > 0)
        return 0;
    writes_to_fail--;
    errno = EIO;
    return 1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int fsync(int file) { return sync_fails(file) ? -1 : REAL(fsync)(file); }

int fdatasync(int file) { return sync_fails(file) ? -1 : REAL(fdatasync)(file); }

ssize_t pwrite64(int file, const void *data, size_t size, off64_t offset)
{
    return write_fails(file) ? -1 : REAL(pwrite64)(file, data, size, offset);
}

ssize_t pwrite(int file, const void *data, size_t size, off_t offset)
{
    return write_fails(file) ? -1 : REAL(pwrite)(file, data, size, offset);
}

ssize_t write(int file, const void *data, size_t size)
{
    return write_fails(file) ? -1 : REAL(write)(file, data, size);
}
