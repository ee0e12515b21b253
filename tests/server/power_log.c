/* Preloaded into a process: notes everything that it does to files of one folder, in order, in a log.
 *
 * POWER_FOLDER names the folder, POWER_LOG the log. An entry is a line "OPERATION NAME OFFSET LENGTH" and, for a write,
 * LENGTH bytes of content; the folder's own name is ".". Memory maps are not noted: SQLite maps its -shm file only, which it makes anew after a crash.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static ssize_t (*real_write)(int, const void *, size_t);
static int log_file = -1;

static void note_path(const char *operation, const char *path, long long offset, size_t length, const void *content) {
    char line[4200];
    const char *folder = getenv("POWER_FOLDER");
    size_t prefix = folder == NULL ? 0 : strlen(folder);
    if (folder == NULL || strncmp(path, folder, prefix) != 0 || (path[prefix] != '/' && path[prefix] != 0))
        return;
    if (log_file < 0) {
        log_file = open(getenv("POWER_LOG"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        real_write = dlsym(RTLD_NEXT, "write");
    }
    const char *name = path[prefix] == 0 ? "." : path + prefix + 1;
    int end = snprintf(line, sizeof line, "%s %s %lld %zu\n", operation, name, offset, length);
    real_write(log_file, line, (size_t)end);
    if (content != NULL)
        real_write(log_file, content, length);
}

static void note(const char *operation, int file, long long offset, size_t length, const void *content) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0)
        return;
    path[size] = 0;
    note_path(operation, path, offset, length, content);
}

#define NOTED(call, noting)                                                                                            \
    pthread_mutex_lock(&mutex);                                                                                        \
    __typeof__(call) result = call;                                                                                    \
    if (result >= 0)                                                                                                   \
        noting;                                                                                                        \
    pthread_mutex_unlock(&mutex);                                                                                      \
    return result;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t pwrite64(int file, const void *content, size_t length, off64_t offset) {
    NOTED(REAL(pwrite64)(file, content, length, offset), note("write", file, offset, (size_t)result, content))
}

ssize_t pwrite(int file, const void *content, size_t length, off_t offset) {
    NOTED(REAL(pwrite)(file, content, length, offset), note("write", file, offset, (size_t)result, content))
}

ssize_t write(int file, const void *content, size_t length) {
    long long offset = lseek(file, 0, SEEK_CUR);
    NOTED(REAL(write)(file, content, length), note("write", file, offset, (size_t)result, content))
}

int ftruncate64(int file, off64_t length) {
    NOTED(REAL(ftruncate64)(file, length), note("truncate", file, length, 0, NULL))
}

int ftruncate(int file, off_t length) {
    NOTED(REAL(ftruncate)(file, length), note("truncate", file, length, 0, NULL))
}

int fsync(int file) { NOTED(REAL(fsync)(file), note("sync", file, 0, 0, NULL)) }

int fdatasync(int file) { NOTED(REAL(fdatasync)(file), note("sync", file, 0, 0, NULL)) }

int unlink(const char *path) { NOTED(REAL(unlink)(path), note_path("unlink", path, 0, 0, NULL)) }
