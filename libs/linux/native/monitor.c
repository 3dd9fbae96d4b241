/*
 * The supervising process of one container, and the process that keeps a pod's shared namespaces. Both are detached
 * from whoever called: a daemon that crashes or is replaced finds them again by the pid and start time on disk.
 */
#include "system.h"
#include "oci.h"

static int write_running(const struct plan *plan, pid_t pid, char *text, size_t size) {
  snprintf(text, size,
           "{\"formatVersion\":1,\"pid\":%d,\"startTime\":\"%llu\",\"monitorPid\":%d,\"monitorStartTime\":\"%llu\","
           "\"startedAtMs\":%lld}\n",
           (int)pid, (unsigned long long)start_time(pid), (int)getpid(), (unsigned long long)start_time(getpid()),
           now_ms(CLOCK_REALTIME));
  return write_durably(plan_find(plan, OP_FILES)->f[0].text, text);
}

/* Tells the caller that all is well, and lets go of it. */
static void report_started(int report, const char *text) {
  if (write(report, text, strlen(text)) < 0) _exit(126);
  close(report);
  int null = open("/dev/null", O_RDWR);
  for (int fd = 0; fd < 3; fd++) dup2(null, fd);
  if (null > 2) close(null);
}

static void detach(const struct plan *plan) {
  const struct record *cgroup = plan_find(plan, OP_MONITOR_CGROUP);
  if (setsid() < 0) fail("setsid", "");
  if (chdir("/") != 0) fail("chdir", "/");
  umask(022);
  if (cgroup != NULL && enter_cgroup(cgroup->f[0].text, 0) != 0) fail("enter cgroup", cgroup->f[0].text);
}

int start_sandbox(const struct plan *plan, int report) {
  char text[256];
  failure_fd = report;
  detach(plan);
  if (unshare((int)plan_find(plan, OP_NAMESPACES)->f[0].number) != 0) fail("unshare", "");
  set_namespaces_up(plan);
  prctl(PR_SET_NAME, "kiln-pause");
  if (write_running(plan, getpid(), text, sizeof text) != 0)
    fail("write running file", plan_find(plan, OP_FILES)->f[0].text);
  report_started(report, text);
  for (;;) pause();
}

/* The process that becomes the container: namespaces, root, then the program. Failures go through `errors`. */
_Noreturn static void contain(const struct plan *plan, int joined, int go, int errors, const int *output) {
  char byte;
  failure_fd = errors;
  if (read(go, &byte, 1) != 1) _exit(126);
  if (joined >= 0 && setns(joined, (int)plan_find(plan, OP_JOIN)->f[2].number) != 0) fail("setns", "");
  uint64_t namespaces = plan_find(plan, OP_NAMESPACES)->f[0].number;
  /* Only now: the namespace's root is the cgroup of its maker. */
  if ((namespaces & CLONE_NEWCGROUP) && unshare(CLONE_NEWCGROUP) != 0) fail("unshare cgroup", "");
  if (setsid() < 0) fail("setsid", "");
  int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
  if (null < 0 || dup2(null, 0) < 0 || dup2(output[0], 1) < 0 || dup2(output[1], 2) < 0) fail("connect output", "");
  build_root(plan);
  become(plan, plan_find(plan, OP_SECCOMP));
}

static pid_t clone_into(const struct plan *plan, int *process) {
  const struct record *cgroup = plan_find(plan, OP_CGROUP);
  uint64_t namespaces = plan_find(plan, OP_NAMESPACES)->f[0].number & ~(uint64_t)CLONE_NEWCGROUP;
  struct clone_args arguments = {
      .flags = namespaces | CLONE_PIDFD, .pidfd = (uint64_t)(uintptr_t)process, .exit_signal = SIGCHLD};
  int fd = -1;
  if (cgroup != NULL) {
    fd = open(cgroup->f[0].text, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) fail("open cgroup", cgroup->f[0].text);
    arguments.flags |= CLONE_INTO_CGROUP;
    arguments.cgroup = (uint64_t)fd;
  }
  pid_t pid = (pid_t)syscall(SYS_clone3, &arguments, sizeof arguments);
  if (pid < 0) fail("clone3", cgroup ? cgroup->f[0].text : "");
  if (pid > 0 && fd >= 0) close(fd);
  return pid;
}

static void open_pipe(int *ends) {
  if (pipe2(ends, O_CLOEXEC) != 0) fail("pipe", "");
}

/* Forwards output until the container's first process has ended and its streams are dry. */
static siginfo_t watch(struct logger *logger, int process, int out, int err) {
  struct pollfd polled[3] = {{out, POLLIN, 0}, {err, POLLIN, 0}, {process, POLLIN, 0}};
  siginfo_t info = {0};
  for (int ended = 0; !ended || polled[0].fd >= 0 || polled[1].fd >= 0;) {
    /* Whoever holds a stream open after the end got it passed over a socket: wait a little, not for ever. */
    int ready = poll(polled, 3, ended ? 2000 : -1);
    if (ready < 0 && errno != EINTR) break;
    if (ready == 0 && ended) break;
    if (ready <= 0) continue;
    for (int i = 0; i < 2; i++) {
      if (polled[i].fd >= 0 && polled[i].revents != 0 && !logger_read(logger, polled[i].fd, i + 1)) polled[i].fd = -1;
    }
    if (polled[2].fd >= 0 && polled[2].revents != 0) {
      while (waitid(P_PIDFD, (id_t)process, &info, WEXITED) != 0 && errno == EINTR) continue;
      polled[2].fd = -1;
      ended = 1;
    }
  }
  return info;
}

static void write_exit(const struct plan *plan, pid_t pid, const siginfo_t *info, long long started) {
  const char *path = plan_find(plan, OP_FILES)->f[1].text;
  char text[256];
  int signalled = info->si_code != CLD_EXITED;
  snprintf(text, sizeof text,
           "{\"formatVersion\":1,\"pid\":%d,\"code\":%d,\"signal\":%d,\"startedAtMs\":%lld,\"finishedAtMs\":%lld}\n",
           (int)pid, signalled ? 128 + info->si_status : info->si_status, signalled ? info->si_status : 0, started,
           now_ms(CLOCK_REALTIME));
  /* A full disk must not lose the status: keep trying for as long as a machine may need to be repaired. */
  while (*path != 0 && write_durably(path, text) != 0) sleep(1);
}

int start_container(const struct plan *plan, int report) {
  int go[2], errors[2], out[2], err[2], process = -1;
  char text[256];
  struct failure failure;
  failure_fd = report;
  detach(plan);
  /* systemd stopping the pod's scope, or a terminal, must not take the witness before the accused. */
  for (const int *one = (const int[]){SIGTERM, SIGINT, SIGHUP, SIGPIPE, 0}; *one != 0; one++) signal(*one, SIG_IGN);
  prctl(PR_SET_NAME, "kiln-monitor");
  prctl(PR_SET_DUMPABLE, 0);
  open_pipe(go);
  open_pipe(errors);
  open_pipe(out);
  open_pipe(err);
  struct logger *logger = logger_open(plan);
  if (logger == NULL) fail("open log", "");
  /* Before the clone: in a new pid namespace the pid means nothing. */
  const struct record *join = plan_find(plan, OP_JOIN);
  int joined = join == NULL ? -1 : open_process((pid_t)join->f[0].number, join->f[1].number);
  if (join != NULL && joined < 0) fail("find the process to join", "");
  pid_t pid = clone_into(plan, &process);
  if (pid == 0) {
    const int output[2] = {out[1], err[1]};
    close(go[1]);
    close(report);
    contain(plan, joined, go[0], errors[1], output);
  }
  if (joined >= 0) close(joined);
  close(go[0]);
  close(errors[1]);
  close(out[1]);
  close(err[1]);
  long long started = now_ms(CLOCK_REALTIME);
  if (write_running(plan, pid, text, sizeof text) != 0) fail("write running file", plan_find(plan, OP_FILES)->f[0].text);
  if (write(go[1], "g", 1) != 1) fail("release the container", "");
  close(go[1]);
  ssize_t told;
  while ((told = read(errors[0], &failure, sizeof failure)) < 0 && errno == EINTR) continue;
  if (told == (ssize_t)sizeof failure) {
    if (write(report, &failure, sizeof failure) < 0) _exit(126);
    close(report);
    waitpid(pid, NULL, 0);
    unlink(plan_find(plan, OP_FILES)->f[0].text);
    return 127;
  }
  close(errors[0]);
  report_started(report, text);
  siginfo_t info = watch(logger, process, out[0], err[0]);
  write_exit(plan, pid, &info, started);
  return 0;
}

static void enter_pod(const void *context) {
  const struct plan *plan = context;
  const struct record *join = plan_find(plan, OP_JOIN), *cgroup = plan_find(plan, OP_CGROUP);
  if (cgroup != NULL && enter_cgroup(cgroup->f[0].text, 0) != 0) fail("enter cgroup", cgroup->f[0].text);
  join_process((pid_t)join->f[0].number, join->f[1].number);
}

static void become_there(void *context) {
  const struct init *init = context;
  /* Not in the caller's session: a program in the container could type into its terminal otherwise. */
  if (setsid() < 0) fail("setsid", "");
  if (init->console >= 0) use_terminal(init, open("/dev/pts", O_RDONLY | O_DIRECTORY | O_CLOEXEC), 0);
  become(init->plan, plan_find(init->plan, OP_SECCOMP));
}

int run_in_container(struct plan *plan) {
  int errors[2], terminal, status, master = -1;
  struct failure failure;
  struct clone_result made = {0, -1};
  failure_fd = STDERR_FILENO;
  open_pipe(errors);
  failure_fd = errors[1];
  struct init init = {.plan = plan, .console = open_console(plan, &terminal)};
  int cloned = clone_through(enter_pod, plan, 0, become_there, &init, &made);
  close(errors[1]);
  if (terminal >= 0) {
    close(init.console);
    master = receive_descriptor(terminal);
  }
  if (read(errors[0], &failure, sizeof failure) == (ssize_t)sizeof failure) {
    fprintf(stderr, "kiln-init: %s %s: %s\n", failure.step, failure.path, strerror(failure.error));
    if (made.pid > 0) waitpid(made.pid, NULL, 0);
    return failure.error == ENOENT ? 127 : 126;
  }
  if (cloned == 0 && master >= 0) return relay_terminal(master, made.process, made.pid, 3);
  return cloned != 0 || waitpid(made.pid, &status, 0) < 0 ? 126 : exit_code(status);
}
