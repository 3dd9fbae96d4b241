/* `exec`: a further process in a running container, with its cgroup, namespaces and seccomp filter. */
#include "system.h"
#include "oci.h"

static int failed(const struct failure *failure) {
  complain_of(failure);
  return failure->error == ENOENT ? 127 : failure->error == EACCES ? 126 : 255;
}

static void set_affinity(const struct plan *plan, uint64_t when, const char *step) {
  const struct record *r;
  for (size_t at = 0; (r = plan_next(plan, OP_CPU_AFFINITY, &at)) != NULL;) {
    if (r->f[0].number == when && syscall(SYS_sched_setaffinity, 0, r->f[1].number, r->f[1].text) != 0) fail(step, "");
  }
}

static void enter_container(const void *context) {
  const struct init *init = context;
  set_affinity(init->plan, 0, "set initial CPU affinity");
  /* `exec --cgroup`: a group below the container's, that is there. */
  join_cgroups(plan_find(init->plan, OP_CGROUP_FOLDER) ? init->plan : &init->container->plan);
  set_affinity(init->plan, 1, "set final CPU affinity");
  join_process(init->container->pid, init->container->started_at);
}

static int run_exec(struct container *c, const struct plan *plan) {
  int terminal, master = -1;
  struct message message;
  struct failure failure = {0};
  struct init init = {.plan = plan, .container = c, .listener = -1, .console = open_console(plan, &terminal)};
  if (plan_find(plan, OP_CONSOLE) != NULL && init.console < 0)
    return complain("connect console socket: %s", strerror(errno));
  signal(SIGPIPE, SIG_IGN);
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, init.sync) != 0) return complain("socketpair: %s", strerror(errno));
  struct clone_result made = {0, -1};
  failure_fd = init.sync[1];
  int cloned = clone_through(enter_container, &init, 0, init_exec, &init, &made);
  pid_t pid = made.pid;
  close(init.sync[1]);
  if (cloned != 0) return expect(init.sync[0], MESSAGE_BUILT, &message), complain_of(&message.failure), 255;
  if (limit_process(plan, pid, &failure) != 0) {
    complain_of(&failure);
  } else if (tell(init.sync[0], MESSAGE_GO, (int)pid) == 0) {
    if (terminal >= 0) {
      close(init.console);
      master = receive_descriptor(terminal);
    }
    /* Its end closes at exec: then all is well. */
    ssize_t got = recv(init.sync[0], &message, sizeof message, 0);
    if (got > 0) {
      memcpy(&failure, &message, sizeof failure);
      waitpid(pid, NULL, 0);
      return failed(&failure);
    }
    if (hand_over(plan, &made, "setns", &failure) == 0) {
      if (plan_find(plan, OP_OPTIONS)->f[0].number & OPTION_DETACH) return 0;
      return master >= 0 ? relay_terminal(master, made.process, pid, -1) : wait_process(made.process, pid);
    }
    complain_of(&failure);
  }
  kill(pid, SIGKILL);
  waitpid(pid, NULL, 0);
  return 255;
}

int command_exec(struct front *front) {
  static const char *const valued[] = {"cwd", "w", "env", "e", "u", "user", "g", "additional-gids", "p", "process",
                                       "pid-file", "console-socket", "process-label", "apparmor", "c", "cap", "preserve-fds",
                                       "cgroup", "pidfd-socket", NULL};
  struct container c;
  struct plan plan;
  size_t length;
  char **rest = positional(front, valued);
  /* As runc: 255 is its own failure, any other code the program's. */
  if (rest[0] == NULL) return complain("exec needs a container id"), 255;
  if (open_container(front, rest[0], &c, 0) != 0) return complain("container %s does not exist", rest[0]), 255;
  enum status status = status_of(&c);
  if (status == STATUS_STOPPED || status == STATUS_CREATING)
    return complain("cannot exec in a %s container", status_names[status]), 255;
  if (status == STATUS_PAUSED && !option_given(front, "ignore-paused", 0))
    return complain("cannot exec in a paused container"), 255;
  return ask_plan(front, &c, PLAN_OCI_EXEC, &plan, &length) == NULL ? 255 : run_exec(&c, &plan);
}
