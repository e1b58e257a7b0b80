/* Preloaded into a process, so that no file of it can be locked. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/syscall.h>
#include <unistd.h>

static int control(int file, int command, va_list rest) {
    long argument = va_arg(rest, long);
    if (command == F_SETLK || command == F_SETLKW) {
        errno = ENOLCK;
        return -1;
    }
    return (int)syscall(SYS_fcntl, file, command, argument);
}

int fcntl(int file, int command, ...) {
    va_list rest;
    va_start(rest, command);
    int outcome = control(file, command, rest);
    va_end(rest);
    return outcome;
}

int fcntl64(int file, int command, ...) {
    va_list rest;
    va_start(rest, command);
    int outcome = control(file, command, rest);
    va_end(rest);
    return outcome;
}
