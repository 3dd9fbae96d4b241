/* Namespaces of a container: those it gets, those it enters by path, and who its root is outside. */
#include "system.h"
#include "oci.h"

#define NAMESPACES_MAX 8

struct joined {
  int fd, flag; /* CLONE_NEW* */
  const char *path;
};

int write_id_maps(const struct plan *plan, unsigned map, pid_t pid) {
  static const char *const names[] = {"uid_map", "gid_map"};
  char path[64], text[4096];
  for (unsigned kind = 0; kind < 2; kind++) {
    size_t length = 0;
    const struct record *r;
    for (size_t at = 0; (r = plan_next(plan, OP_ID_MAP, &at)) != NULL;) {
      if (r->f[0].number != map || r->f[1].number != kind) continue;
      length += (size_t)snprintf(text + length, sizeof text - length, "%u %u %u\n", (unsigned)r->f[2].number,
                                 (unsigned)r->f[3].number, (unsigned)r->f[4].number);
      if (length >= sizeof text) return errno = E2BIG, -1;
    }
    if (length == 0) continue;
    /* Without privilege the kernel takes a map of groups only where setgroups is given up. */
    snprintf(path, sizeof path, "/proc/%d/setgroups", (int)pid);
    if (kind == 1 && geteuid() != 0 && write_text(path, "deny") != 0) return -1;
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, names[kind]);
    if (write_text(path, text) != 0) return -1;
  }
  return 0;
}

int open_id_map(const struct plan *plan, unsigned map) {
  char path[64];
  int hold[2], fd = -1;
  if (pipe2(hold, O_CLOEXEC) != 0) return -1;
  struct clone_args arguments = {.flags = CLONE_NEWUSER, .exit_signal = SIGCHLD};
  pid_t pid = (pid_t)syscall(SYS_clone3, &arguments, sizeof arguments);
  if (pid == 0) {
    char byte;
    close(hold[1]);
    _exit(read(hold[0], &byte, 1) < 0);
  }
  close(hold[0]);
  snprintf(path, sizeof path, "/proc/%d/ns/user", (int)pid);
  if (pid > 0 && write_id_maps(plan, map, pid) == 0) fd = open(path, O_RDONLY | O_CLOEXEC);
  int error = errno;
  close(hold[1]);
  if (pid > 0) waitpid(pid, NULL, 0);
  errno = error;
  return fd;
}

void become_root_there(void) {
  /* Where setgroups was given up the old groups stay; they mean nothing there. */
  if (setgroups(0, NULL) != 0 && errno != EPERM) fail("setgroups", "");
  if (setresgid(0, 0, 0) != 0) fail("setresgid", "");
  if (setresuid(0, 0, 0) != 0) fail("setresuid", "");
  if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0) fail("set parent death signal", "");
}

/* Enters what the caller may; what it may not enter as itself, again as a member of the user namespace that is among them. */
static void join_all(struct joined *all, size_t count) {
  for (int round = 0; round < 3; round++) {
    for (size_t i = 0; i < count; i++) {
      if (all[i].fd < 0 || (round == 1) != (all[i].flag == CLONE_NEWUSER)) continue;
      if (setns(all[i].fd, all[i].flag) != 0) {
        if (round > 0 || errno != EPERM) fail("join namespace", all[i].path);
        continue;
      }
      close(all[i].fd);
      all[i].fd = -1;
      if (all[i].flag == CLONE_NEWUSER) become_root_there();
    }
  }
}

static void join_paths(const struct plan *plan) {
  struct joined all[NAMESPACES_MAX];
  size_t count = 0;
  const struct record *r;
  for (size_t at = 0; (r = plan_next(plan, OP_NAMESPACE_PATH, &at)) != NULL; count++) {
    all[count] = (struct joined){open(r->f[1].text, O_RDONLY | O_CLOEXEC), (int)r->f[0].number, r->f[1].text};
    if (all[count].fd < 0) fail("open namespace", r->f[1].text);
  }
  join_all(all, count);
}

static pid_t clone_with(uint64_t flags, void (*body)(void *), void *context, int *process) {
  struct clone_args arguments = {.flags = flags, .exit_signal = flags & CLONE_PARENT ? 0 : SIGCHLD};
  if (process != NULL) {
    arguments.flags |= CLONE_PIDFD;
    arguments.pidfd = (uint64_t)(uintptr_t)process;
  }
  pid_t pid = (pid_t)syscall(SYS_clone3, &arguments, sizeof arguments);
  if (pid == 0) body(context);
  return pid;
}

int clone_through(void (*enter)(const void *), const void *what, uint64_t flags, void (*body)(void *), void *context,
                  struct clone_result *result) {
  int report[2];
  if (pipe2(report, O_CLOEXEC) != 0) return -1;
  pid_t helper = fork();
  if (helper == 0) {
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) fail("prctl", "");
    enter(what);
    pid_t pid = clone_with(flags | CLONE_PARENT, body, context, NULL);
    if (pid < 0) fail("clone3", "");
    _exit(write(report[1], &pid, sizeof pid) != sizeof pid);
  }
  close(report[1]);
  int good = helper > 0 && read(report[0], &result->pid, sizeof result->pid) == sizeof result->pid;
  close(report[0]);
  if (helper > 0) waitpid(helper, NULL, 0);
  if (!good) return result->pid = 0, errno = ECHILD, -1;
  result->process = (int)syscall(SYS_pidfd_open, result->pid, 0);
  return result->process < 0 ? -1 : 0;
}

static void enter_planned(const void *plan) {
  const struct record *r;
  join_cgroups(plan);
  join_paths(plan);
  if ((plan_find(plan, OP_NAMESPACES)->f[0].number & CLONE_NEWTIME) && unshare(CLONE_NEWTIME) != 0) fail("unshare time", "");
  for (size_t at = 0; (r = plan_next(plan, OP_TIME_OFFSET, &at)) != NULL;) {
    if (write_text("/proc/self/timens_offsets", r->f[0].text) != 0) fail("set time offset", r->f[0].text);
  }
}

int needs_helper(const struct plan *plan) {
  return plan_count(plan, OP_NAMESPACE_PATH) > 0 || (plan_find(plan, OP_NAMESPACES)->f[0].number & CLONE_NEWTIME) != 0;
}

int clone_container(const struct plan *plan, void (*body)(void *), void *context, struct clone_result *result) {
  uint64_t wanted = plan_find(plan, OP_NAMESPACES)->f[0].number;
  /* A cgroup namespace is rooted where its maker is, so that one waits; a time namespace is entered by children only. */
  uint64_t flags = wanted & ~(uint64_t)(CLONE_NEWCGROUP | CLONE_NEWTIME);
  if (needs_helper(plan)) return clone_through(enter_planned, plan, flags, body, context, result);
  result->pid = clone_with(flags, body, context, &result->process);
  return result->pid > 0 ? 0 : -1;
}

void join_process(pid_t pid, uint64_t started) {
  static const struct {
    const char *name;
    int flag;
  } kinds[NAMESPACES_MAX] = {{"cgroup", CLONE_NEWCGROUP}, {"ipc", CLONE_NEWIPC},   {"uts", CLONE_NEWUTS},
                             {"net", CLONE_NEWNET},       {"pid", CLONE_NEWPID},   {"time", CLONE_NEWTIME},
                             {"user", CLONE_NEWUSER},     {"mnt", CLONE_NEWNS}};
  struct joined all[NAMESPACES_MAX];
  char path[64];
  for (size_t i = 0; i < NAMESPACES_MAX; i++) {
    struct stat mine, theirs;
    snprintf(path, sizeof path, "/proc/self/ns/%s", kinds[i].name);
    int known = stat(path, &mine) == 0;
    snprintf(path, sizeof path, "/proc/%d/ns/%s", (int)pid, kinds[i].name);
    all[i] = (struct joined){known ? open(path, O_RDONLY | O_CLOEXEC) : -1, kinds[i].flag, kinds[i].name};
    if (known && (all[i].fd < 0 || fstat(all[i].fd, &theirs) != 0)) fail("open namespace", path);
    /* The user namespace we are in already may not be entered again, and the others need not. */
    if (known && mine.st_ino == theirs.st_ino) all[i].fd = (close(all[i].fd), -1);
  }
  /* Whose they are is checked after they are open: from here on the pid does not matter. */
  errno = ESRCH;
  if (start_time(pid) != started) fail("find the container", "");
  join_all(all, NAMESPACES_MAX);
}
