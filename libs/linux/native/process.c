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
  return errno = ESRCH, -1;
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

int set_rlimits(const struct plan *plan, pid_t pid) {
  const struct record *r;
  for (size_t at = 0; (r = plan_next(plan, OP_RLIMIT, &at)) != NULL;) {
    struct rlimit limit = {.rlim_cur = r->f[1].number, .rlim_max = r->f[2].number};
    if (prlimit(pid, (int)r->f[0].number, &limit, NULL) != 0) return -1;
  }
  return 0;
}

int set_oom_score(const struct plan *plan, pid_t pid) {
  const struct record *process = plan_find(plan, OP_PROCESS);
  char path[64], text[16];
  if (process->f[3].number & PROCESS_KEEP_OOM_SCORE) return 0;
  snprintf(path, sizeof path, pid == 0 ? "/proc/self/oom_score_adj" : "/proc/%d/oom_score_adj", (int)pid);
  snprintf(text, sizeof text, "%d", (int)process->f[4].number - 1000);
  return write_text(path, text);
}

long long now_ms(clockid_t clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  return (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int connect_socket(const char *path, int type) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
  /* Through /proc/self/fd a path may be longer than the 108 bytes of an address. */
  int file = open(path, O_PATH | O_CLOEXEC);
  if (fd < 0 || file < 0) return -1;
  snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d", file);
  int result = connect(fd, (struct sockaddr *)&address, sizeof address);
  close(file);
  if (result == 0) return fd;
  close(fd);
  return -1;
}
