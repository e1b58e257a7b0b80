/* Preloaded into a process: writes to journals, or syncs, take SLOW_MS. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int is_journal(int file) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return strstr(path, ".journal") != NULL;
}

static void slow(const char *call) {
    const char *chosen = getenv("SLOW_CALL");
    if (chosen != NULL && strcmp(chosen, call) == 0)
        usleep(1000 * atoi(getenv("SLOW_MS")));
}

ssize_t write(int file, const void *bytes, size_t length) {
    if (is_journal(file)) slow("write");
    return syscall(SYS_write, file, bytes, length);
}

int fdatasync(int file) {
    slow("fdatasync");
    return (int)syscall(SYS_fdatasync, file);
}
