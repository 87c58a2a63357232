// A disk and a clock that misbehave on demand: a library loaded before libc (LD_PRELOAD) that a test steers through a
// file both have mapped, named by FAULTS_FILE. All zero is a healthy machine.
//
//   int64 clock_ms     added to the time of day
//   int32 sync_ms      how long fsync and fdatasync take
//   int32 sync_errno   what they fail with
//   int32 write_errno  what a write to a file opened for appending fails with (standard error aside)
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct faults {
    int64_t clock_ms;
    int32_t sync_ms, sync_errno, write_errno;
};

static const struct faults healthy;
static const volatile struct faults *faults = &healthy;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("FAULTS_FILE");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *mapped = mmap(NULL, sizeof(struct faults), PROT_READ, MAP_SHARED, file, 0);
    if (mapped != MAP_FAILED) faults = mapped;
    close(file);
}

// In small steps, so that a disk that becomes fast again is so at once.
static int sync_faults(void) {
    for (int32_t waited = 0; waited < faults->sync_ms; waited += 5) usleep(5000);
    return faults->sync_errno;
}

int fsync(int fd) {
    if ((errno = sync_faults())) return -1;
    return (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd) {
    if ((errno = sync_faults())) return -1;
    return (int)syscall(SYS_fdatasync, fd);
}

ssize_t write(int fd, const void *bytes, size_t count) {
    if (faults->write_errno && fd > 2 && (fcntl(fd, F_GETFL) & O_APPEND)) {
        errno = faults->write_errno;
        return -1;
    }
    return syscall(SYS_write, fd, bytes, count);
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    int result = (int)syscall(SYS_clock_gettime, clock, time);
    if (result == 0 && clock == CLOCK_REALTIME && faults->clock_ms) {
        int64_t nanoseconds = time->tv_nsec + faults->clock_ms % 1000 * 1000000;
        time->tv_sec += faults->clock_ms / 1000 + (nanoseconds < 0 ? -1 : nanoseconds / 1000000000);
        time->tv_nsec = (nanoseconds + 1000000000) % 1000000000;
    }
    return result;
}
