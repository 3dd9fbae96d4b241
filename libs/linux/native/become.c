/* The last steps of a process that is to run a program in a container: it drops to what the plan leaves it, and executes. */
#include "system.h"
#include "oci.h"

/* So that a program of another user may reopen /dev/stdout. */
static void own_streams(const struct record *process) {
  struct stat status;
  for (int fd = 0; fd < 3; fd++) {
    if (fstat(fd, &status) != 0 || status.st_uid == process->f[0].number || S_ISREG(status.st_mode)) continue;
    if (S_ISDIR(status.st_mode) || (S_ISCHR(status.st_mode) && status.st_rdev == makedev(1, 3))) continue;
    if (fchown(fd, (uid_t)process->f[0].number, (gid_t)-1) != 0) continue;
  }
}

static void load_seccomp(const struct record *seccomp, int listener) {
  struct sock_fprog program = {.len = (unsigned short)(seccomp->f[1].number / 8),
                               .filter = (struct sock_filter *)(uintptr_t)seccomp->f[1].text};
  unsigned flags = (unsigned)seccomp->f[0].number;
  /* The filter may hold up our own next call, so another process that shares our descriptors passes the listener on. */
  volatile int *told = NULL;
  char text[8192];
  if (listener >= 0) {
    told = mmap(NULL, sizeof *told, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (told == MAP_FAILED) fail("allocate", "");
    *told = -1;
    snprintf(text, sizeof text, "%s", seccomp->f[3].text);
    pid_t helper = (pid_t)syscall(SYS_clone, CLONE_FILES | SIGCHLD, NULL, NULL, NULL, NULL);
    if (helper < 0) fail("fork", "");
    if (helper == 0) {
      for (int tries = 0; *told < 0 && tries < 10000; tries++) usleep(500);
      _exit(*told < 0 || send_descriptor(listener, *told, text) != 0);
    }
  }
  long result = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
  if (result < 0) fail("load seccomp filter", "");
  if (told != NULL) *told = (int)result;
}

static void keep_only_ours(struct record *caps) {
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
  struct __user_cap_data_struct data[2] = {{0}};
  if (syscall(SYS_capget, &header, data) != 0) fail("capget", "");
  uint64_t ours = data[0].permitted | (uint64_t)data[1].permitted << 32;
  /* What we do not have ourselves cannot be given; the specification asks for a warning at most. */
  for (int set = 1; set < 5; set++) caps->f[set].number &= set == 3 ? ~(uint64_t)0 : ours;
  caps->f[4].number &= caps->f[2].number & caps->f[3].number;
}

static void set_scheduling(const struct plan *plan) {
  const struct record *r = plan_find(plan, OP_SCHEDULER);
  if (r != NULL) {
    const struct field *f = r->f;
    struct {
      uint32_t size, policy;
      uint64_t flags;
      uint32_t nice, priority;
      uint64_t runtime, deadline, period;
    } attr = {48,          (uint32_t)f[0].number, f[3].number, (uint32_t)f[1].number - 20, (uint32_t)f[2].number,
              f[4].number, f[5].number,           f[6].number};
    if (syscall(SYS_sched_setattr, 0, &attr, 0) != 0) fail("sched_setattr", "");
  }
  if ((r = plan_find(plan, OP_IO_PRIORITY)) != NULL && syscall(SYS_ioprio_set, 1, 0, r->f[0].number) != 0)
    fail("ioprio_set", "");
  if ((r = plan_find(plan, OP_PERSONALITY)) != NULL && personality(r->f[0].number) < 0) fail("personality", "");
}

static void set_labels(const struct plan *plan) {
  const struct record *r = plan_find(plan, OP_LABELS);
  for (int i = 0; r != NULL && i < 2; i++) {
    const char *path = i == 0 ? "/proc/self/attr/apparmor/exec" : "/proc/self/attr/exec";
    char text[4200];
    if (r->f[i].text[0] == 0) continue;
    snprintf(text, sizeof text, i == 0 ? "exec %s" : "%s", r->f[i].text);
    if (access(path, W_OK) != 0) path = "/proc/self/attr/exec";
    if (write_text(path, text) != 0) fail("set security label", r->f[i].text);
  }
}

const struct passwd *user_of(uid_t uid) {
  struct stat status;
  const struct passwd *user = NULL;
  /* Whatever else a container may have in its place is not waited for. */
  int fd = open("/etc/passwd", O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  FILE *users = fd >= 0 && fstat(fd, &status) == 0 && S_ISREG(status.st_mode) ? fdopen(fd, "r") : NULL;
  while (users != NULL && (user = fgetpwent(users)) != NULL && user->pw_uid != uid) continue;
  if (users != NULL) fclose(users);
  return user;
}

/* HOME as the container's own users have it, unless the plan says one. */
static void find_home(char **environment, uid_t uid) {
  static char home[PATH_MAX] = "HOME=/";
  for (; *environment != NULL; environment++) {
    if (strncmp(*environment, "HOME=", 5) == 0) return;
  }
  const struct passwd *user = user_of(uid);
  if (user != NULL && *user->pw_dir == '/') snprintf(home, sizeof home, "HOME=%s", user->pw_dir);
  *environment = home;
}

void become(const struct plan *plan, const struct record *seccomp) {
  const struct record *process = plan_find(plan, OP_PROCESS);
  struct record caps = *plan_find(plan, OP_CAPABILITIES);
  const char *cwd = plan_find(plan, OP_CWD)->f[0].text;
  const struct record *options = plan_find(plan, OP_OPTIONS);
  unsigned kept = options ? (unsigned)options->f[1].number : 0;
  char here[4400];
  char **arguments = list_of(plan, OP_ARGUMENT), **environment = list_of(plan, OP_ENVIRONMENT);
  int privileges = (process->f[3].number & PROCESS_NO_NEW_PRIVILEGES) == 0, listener = -1;
  if (options == NULL && set_rlimits(plan, 0) != 0) fail("setrlimit", "");
  find_home(environment, (uid_t)process->f[0].number);
  set_scheduling(plan);
  set_labels(plan);
  if (options != NULL) own_streams(process);
  if (seccomp != NULL && seccomp->f[2].text[0] != 0) {
    listener = connect_socket(seccomp->f[2].text, SOCK_STREAM);
    if (listener < 0) fail("connect seccomp listener", seccomp->f[2].text);
  }
  /* Nothing of the host may be reached from here on: every other descriptor closes at exec. */
  if (syscall(SYS_close_range, 3 + kept, ~0u, 4 /* CLOSE_RANGE_CLOEXEC */) != 0) fail("close_range", "");
  for (unsigned fd = 3; fd < 3 + kept; fd++) {
    if (fcntl((int)fd, F_SETFD, 0) != 0) fail("keep descriptor", "");
  }
  /* As root where that is allowed to enter it, else as the user. */
  int there = chdir(cwd) == 0;
  if (!there && errno != EACCES && errno != EPERM) fail("chdir", cwd);
  keep_only_ours(&caps);
  if (seccomp != NULL && privileges) load_seccomp(seccomp, listener);
  drop_bounding(caps.f[0].number);
  set_user(plan, process);
  set_capabilities(&caps);
  if (!privileges && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) fail("no_new_privs", "");
  if (!there && chdir(cwd) != 0) fail("chdir", cwd);
  /* A working directory that leads out through a descriptor has no path here (CVE-2024-21626). */
  if (syscall(SYS_getcwd, here, sizeof here) < 0 || here[0] != '/')
    errno = ENOENT, fail("working directory outside of the container", cwd);
  umask((mode_t)process->f[2].number);
  /* Who supervises a pod's container must not outlive it unnoticed. Set last: a change of credentials clears it. */
  if (options == NULL && prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0) fail("set parent death signal", "");
  for (int number = 1; number < NSIG; number++) signal(number, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  if (seccomp != NULL && !privileges) load_seccomp(seccomp, listener);
  execute(arguments, environment, 0);
  _exit(126);
}
