/* `create` and `run`: the front makes cgroups and the first process, and leads it step by step to its waiting place. */
#include "system.h"
#include "oci.h"

static int set_failure(struct failure *failure, const char *step, const char *path) {
  failure->error = errno;
  snprintf(failure->step, sizeof failure->step, "%s", step);
  snprintf(failure->path, sizeof failure->path, "%s", path);
  return -1;
}

int limit_process(const struct plan *plan, pid_t pid, struct failure *failure) {
  if (set_rlimits(plan, pid) != 0) return set_failure(failure, "set resource limit", "");
  return set_oom_score(plan, pid) == 0 ? 0 : set_failure(failure, "write oom_score_adj", "");
}

int hand_over(const struct plan *plan, const struct clone_result *made, const char *word, struct failure *failure) {
  const struct record *file = plan_find(plan, OP_PID_FILE), *socket = plan_find(plan, OP_PIDFD_SOCKET);
  char text[16];
  int length = snprintf(text, sizeof text, "%d", (int)made->pid);
  int to = socket == NULL ? -1 : connect_socket(socket->f[0].text, SOCK_STREAM);
  if (socket != NULL && (to < 0 || send_descriptor(to, made->process, word) != 0))
    return set_failure(failure, "send pidfd to", socket->f[0].text);
  if (to >= 0) close(to);
  if (file == NULL || replace_file(AT_FDCWD, file->f[0].text, text, (size_t)length, 0) == 0) return 0;
  return set_failure(failure, "write pid file", file->f[0].text);
}

static int listen_for_start(const struct container *c) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/start", c->folder);
  if (fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0 && listen(fd, 1) == 0) return fd;
  if (fd >= 0) close(fd);
  return -1;
}

/* Everything up to the waiting place. 0, or -1 with the failure; what was made is in `c` for the caller to destroy. */
static int build(struct container *c, struct init *init, struct clone_result *made, struct failure *failure) {
  const struct plan *plan = &c->plan;
  const char *path = "";
  struct message message;
  if (make_cgroups(plan, &path) != 0) return set_failure(failure, "create cgroup", path);
  if (write_limits(plan, &path) != 0) return set_failure(failure, "set cgroup limit", path);
  const char *step = open_sources(plan, &path);
  if (step != NULL) return set_failure(failure, step, path);
  int cloned = clone_container(plan, init_container, init, made);
  if (cloned != 0 && errno != ECHILD) return set_failure(failure, "clone container", "");
  close(init->sync[1]);
  if (cloned != 0) return expect(init->sync[0], MESSAGE_HOOKS, &message), *failure = message.failure, -1;
  close(init->listener);
  c->pid = made->pid;
  c->started_at = start_time(made->pid);
  if (write_state(c) != 0) return set_failure(failure, "write state", c->id);
  if (write_id_maps(plan, 0, made->pid) != 0) return set_failure(failure, "write id maps", "");
  if (tell(init->sync[0], MESSAGE_GO, (int)made->pid) != 0) return set_failure(failure, "release container", "");
  if (expect(init->sync[0], MESSAGE_HOOKS, &message) != 0) return *failure = message.failure, -1;
  char *state = state_json(c, STATUS_CREATING, made->pid);
  const char *bundle = plan_find(plan, OP_BUNDLE)->f[0].text;
  int hooks = run_hooks(plan, HOOK_PRESTART, state, bundle);
  if (hooks == 0) hooks = run_hooks(plan, HOOK_CREATE_RUNTIME, state, bundle);
  free(state);
  errno = ECANCELED;
  if (hooks != 0) return set_failure(failure, "run hooks", "createRuntime");
  if (tell(init->sync[0], MESSAGE_GO, 0) != 0) return set_failure(failure, "release container", "");
  if (expect(init->sync[0], MESSAGE_BUILT, &message) != 0) return *failure = message.failure, -1;
  if (limit_process(plan, made->pid, failure) != 0) return -1;
  if (hand_over(plan, made, "standard", failure) != 0) return -1;
  c->created_ms = now_ms(CLOCK_REALTIME);
  if (write_state(c) != 0) return set_failure(failure, "write state", c->id);
  if (tell(init->sync[0], MESSAGE_GO, 0) != 0) return set_failure(failure, "release container", "");
  /* It closes its end once it no longer dies with us. */
  ssize_t got = recv(init->sync[0], &message, sizeof message, 0);
  if (got == (ssize_t)sizeof *failure) memcpy(failure, &message, sizeof *failure);
  return got > 0 ? -1 : 0;
}

int open_console(const struct plan *plan, int *ours) {
  const struct record *console = plan_find(plan, OP_CONSOLE);
  int pair[2];
  *ours = -1;
  if (console == NULL) return -1;
  if (console->f[0].text[0] != 0) return connect_socket(console->f[0].text, SOCK_STREAM);
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) return -1;
  *ours = pair[0];
  return pair[1];
}

/* `run` without --detach: start, wait with the caller's signals and terminal, and leave nothing. */
static int attend(const struct front *front, struct container *c, struct clone_result *made, int terminal) {
  int master = terminal < 0 ? -1 : receive_descriptor(terminal);
  uint64_t options = plan_find(&c->plan, OP_OPTIONS)->f[0].number;
  struct container now;
  if (start_container_now(c) != 0) return destroy_container(front, c), 1;
  if (options & OPTION_DETACH) return 0;
  /* Others may pause, update or delete it meanwhile. */
  close(c->folder);
  int code = master >= 0 ? relay_terminal(master, made->process, made->pid, -1) : wait_process(made->process, made->pid);
  if ((options & OPTION_KEEP) == 0 && open_container(front, c->id, &now, 1) == 0 && now.pid == c->pid)
    destroy_container(front, &now);
  return code;
}

int command_create(struct front *front) {
  static const char *const valued[] = {"b", "bundle", "f", "config", "pid-file", "console-socket", "preserve-fds", "pidfd-socket", NULL};
  struct container c;
  struct clone_result made = {0, -1};
  struct failure failure = {0};
  int run = strcmp(front->command, "run") == 0, terminal;
  char **rest = positional(front, valued);
  size_t length;
  if (rest[0] == NULL || rest[1] != NULL) return complain("%s needs one container id", front->command);
  struct plan plan;
  unsigned char *bytes = ask_plan(front, NULL, PLAN_OCI_CREATE, &plan, &length);
  if (bytes == NULL) return 1;
  if (cgroup_frozen(&plan)) return complain("container's cgroup unexpectedly frozen");
  if (make_container(front, rest[0], &c) != 0) return 1;
  c.plan = plan;
  c.planned = 1;
  struct init init = {.plan = &c.plan, .container = &c, .console = open_console(&plan, &terminal), .listener = -1};
  signal(SIGPIPE, SIG_IGN);
  if (plan_find(&plan, OP_CONSOLE) != NULL && init.console < 0) {
    set_failure(&failure, "connect console socket", plan_find(&plan, OP_CONSOLE)->f[0].text);
  } else if (replace_file(c.folder, "plan", bytes, length, 0) != 0 || (init.listener = listen_for_start(&c)) < 0) {
    set_failure(&failure, "write folder of", c.id);
  } else if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, init.sync) != 0) {
    set_failure(&failure, "socketpair", "");
  } else {
    failure_fd = init.sync[1];
    if (build(&c, &init, &made, &failure) == 0) {
      if (init.console >= 0) close(init.console);
      return run ? attend(front, &c, &made, terminal) : 0;
    }
  }
  complain_of(&failure);
  if (made.pid > 0) {
    syscall(SYS_pidfd_send_signal, made.process, SIGKILL, NULL, 0);
    waitpid(made.pid, NULL, 0);
  }
  destroy_container(front, &c);
  return failure.error == ENOENT ? 127 : failure.error == EACCES ? 126 : 1;
}
