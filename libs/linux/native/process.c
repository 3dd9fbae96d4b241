#include "system.h"
#include "process.h"

int failure_fd = -1;

void fail(const char *step, const char *path) {
  struct failure failure = {.error = errno};
  snprintf(failure.step, sizeof failure.step, "%s", step);
  snprintf(failure.path, sizeof failure.path, "%s", path);
  if (write(failure_fd, &failure, sizeof failure) < 0) _exit(126);
  _exit(127);
}

uint64_t start_time_unless(pid_t pid, const char *states) {
  char path[64], text[1024];
  snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  ssize_t length = read(fd, text, sizeof text - 1);
  close(fd);
  if (length <= 0) return 0;
  text[length] = 0;
  /* The name in parentheses may hold anything, so count fields from its end; the state is field 3. */
  char *at = strrchr(text, ')');
  if (at != NULL && strchr(states, at[2]) != NULL) return 0;
  for (int field = 2; at != NULL && field < 22; field++) at = strchr(at + 1, ' ');
  return at == NULL ? 0 : strtoull(at + 1, NULL, 10);
}

uint64_t start_time(pid_t pid) { return start_time_unless(pid, "-"); }

int open_process(pid_t pid, uint64_t started) {
  int fd = (int)syscall(SYS_pidfd_open, pid, 0);
  if (fd < 0) return -1;
  if (start_time(pid) == started) return fd;
  close(fd);
  errno = ESRCH;
  return -1;
}

int replace_file(int at, const char *path, const void *bytes, size_t length, int durable) {
  char temporary[4200];
  if (snprintf(temporary, sizeof temporary, "%s.new", path) >= (int)sizeof temporary) return errno = ENAMETOOLONG, -1;
  int fd = openat(at, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return -1;
  int good = write(fd, bytes, length) == (ssize_t)length && (!durable || fsync(fd) == 0);
  close(fd);
  if (good && renameat(at, temporary, at, path) == 0) return 0;
  unlinkat(at, temporary, 0);
  return -1;
}

int write_durably(const char *path, const char *text) {
  char folder[4200];
  if (replace_file(AT_FDCWD, path, text, strlen(text), 1) != 0) return -1;
  snprintf(folder, sizeof folder, "%s", path);
  *strrchr(folder, '/') = 0;
  int directory = open(*folder ? folder : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0) return -1;
  int result = fsync(directory);
  close(directory);
  return result;
}

int write_text(const char *path, const char *text) {
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return -1;
  ssize_t wrote = write(fd, text, strlen(text));
  int error = errno;
  close(fd);
  errno = error;
  return wrote == (ssize_t)strlen(text) ? 0 : -1;
}

int enter_cgroup(const char *path, pid_t pid) {
  char file[4200], text[32];
  if (mkdir(path, 0755) != 0 && errno != EEXIST) return -1;
  snprintf(file, sizeof file, "%s/cgroup.procs", path);
  snprintf(text, sizeof text, "%d", (int)pid);
  return write_text(file, text);
}

int loopback_up(void) {
  struct ifreq request = {.ifr_name = "lo"};
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  int result = ioctl(fd, SIOCGIFFLAGS, &request);
  request.ifr_flags |= IFF_UP;
  if (result == 0) result = ioctl(fd, SIOCSIFFLAGS, &request);
  close(fd);
  return result;
}
