/* Preloaded into a process: a sync of a file takes SLOW_DISK microseconds at least. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

static long span;

__attribute__((constructor)) static void begin(void)
{
    const char *text = getenv("SLOW_DISK");
    span = text == NULL ? 0 : atol(text) * 1000;
    prctl(PR_SET_TIMERSLACK, 1000UL); /* else every sleep takes 50 us more */
}

static int slowly(int (*sync)(int), int file)
{
    struct timespec end;
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_nsec += span % 1000000000;
    end.tv_sec += span / 1000000000 + end.tv_nsec / 1000000000;
    end.tv_nsec %= 1000000000;
    int result = sync(file);
    while (span > 0 && clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &end, NULL) != 0)
        ; /* a signal came in between */
    return result;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int fsync(int file) { return slowly(REAL(fsync), file); }

int fdatasync(int file) { return slowly(REAL(fdatasync), file); }
