/*
 * A disk that loses what was not synced, for tests of what a power failure leaves behind.
 *
 * Preloaded into a process, it writes down each change of a file whose path begins with LOST_WRITES_OF before it is made, with
 * what was there and what comes instead, in a journal of that file in the folder LOST_WRITES_TO. A sync of the file empties its
 * journal. Once the process was killed, what is in the journals may be taken back, as a disk that lost its power would have.
 *
 * A record, in the machine's byte order: where (64 bits), the file's length before (64), how many bytes were there (32), how
 * many come (32; all ones for a change of the length), and those bytes one after the other.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NEW_LENGTH UINT32_MAX

struct record {
    uint64_t offset, length_before;
    uint32_t old_bytes, new_bytes;
};

/* How long a sync takes, in microseconds: long enough to be killed in it. */
#define SYNC 2000

static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;

static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static int (*real_ftruncate)(int, off_t);

__attribute__((constructor)) static void find_the_real_ones(void) {
    real_write = (ssize_t(*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    real_pwrite = (ssize_t(*)(int, const void *, size_t, off_t))dlsym(RTLD_NEXT, "pwrite64");
    real_ftruncate = (int (*)(int, off_t))dlsym(RTLD_NEXT, "ftruncate64");
}

/* The journal of the file behind a descriptor, opened; or -1 where the file is none of those that matter. */
static int journal_of(int file) {
    const char *of = getenv("LOST_WRITES_OF"), *to = getenv("LOST_WRITES_TO");
    char link[64], path[PATH_MAX], journal[PATH_MAX];
    if (!of || !to)
        return -1;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return -1;
    path[length] = '\0';
    /* The index of the log is shared memory, which no power failure leaves behind. */
    if (strncmp(path, of, strlen(of)) != 0 || strstr(path, "-shm"))
        return -1;
    const char *name = strrchr(path, '/') + 1;
    if (snprintf(journal, sizeof journal, "%s/%s", to, name) >= (int)sizeof journal)
        abort();
    int opened = open(journal, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (opened < 0)
        abort();
    return opened;
}

/* Closes the journal. `bytes` is null for a change of the length, to `offset`. */
static void write_down(int journal, int file, off64_t offset, const void *bytes, size_t number) {
    struct stat now;
    if (fstat(file, &now) != 0)
        abort();
    size_t there = offset < now.st_size ? (size_t)(now.st_size - offset) : 0;
    if (bytes && there > number)
        there = number;
    struct record record = {(uint64_t)offset, (uint64_t)now.st_size, (uint32_t)there, bytes ? (uint32_t)number : NEW_LENGTH};
    size_t whole = sizeof record + there + number;
    char *text = malloc(whole);
    if (!text)
        abort();
    memcpy(text, &record, sizeof record);
    if (pread64(file, text + sizeof record, there, offset) != (ssize_t)there)
        abort();
    if (bytes)
        memcpy(text + sizeof record + there, bytes, number);
    if (real_write(journal, text, whole) != (ssize_t)whole)
        abort();
    free(text);
    close(journal);
}

ssize_t pwrite64(int file, const void *bytes, size_t number, off64_t offset) {
    int journal = journal_of(file);
    if (journal < 0)
        return real_pwrite(file, bytes, number, offset);
    pthread_mutex_lock(&one_at_a_time);
    write_down(journal, file, offset, bytes, number);
    ssize_t written = real_pwrite(file, bytes, number, offset);
    pthread_mutex_unlock(&one_at_a_time);
    return written;
}

ssize_t write(int file, const void *bytes, size_t number) {
    int journal = journal_of(file);
    if (journal < 0)
        return real_write(file, bytes, number);
    pthread_mutex_lock(&one_at_a_time);
    write_down(journal, file, lseek64(file, 0, SEEK_CUR), bytes, number);
    ssize_t written = real_write(file, bytes, number);
    pthread_mutex_unlock(&one_at_a_time);
    return written;
}

int ftruncate64(int file, off64_t length) {
    int journal = journal_of(file);
    if (journal < 0)
        return real_ftruncate(file, length);
    pthread_mutex_lock(&one_at_a_time);
    write_down(journal, file, length, NULL, 0);
    int result = real_ftruncate(file, length);
    pthread_mutex_unlock(&one_at_a_time);
    return result;
}

/* Nothing is synced in truth: the tests kill processes and not machines. */
int fsync(int file) {
    int journal = journal_of(file);
    if (journal < 0)
        return 0;
    pthread_mutex_lock(&one_at_a_time);
    usleep(SYNC);
    int result = real_ftruncate(journal, 0);
    pthread_mutex_unlock(&one_at_a_time);
    close(journal);
    return result;
}

int fdatasync(int file) {
    return fsync(file);
}
