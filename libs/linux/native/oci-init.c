/* What runs inside: the container's first process until it becomes the program, and a further one of `exec`. */
#include "system.h"
#include "oci.h"

int tell(int socket, uint32_t kind, int number) {
  struct message message = {.kind = kind, .number = number};
  return send(socket, &message, sizeof message, MSG_NOSIGNAL) == (ssize_t)sizeof message ? 0 : -1;
}

int expect(int socket, uint32_t kind, struct message *message) {
  ssize_t got;
  while ((got = recv(socket, message, sizeof *message, 0)) < 0 && errno == EINTR) continue;
  if (got == (ssize_t)sizeof *message && message->kind == kind) return 0;
  /* `fail` writes a bare failure. */
  struct failure failure = {ECHILD, "the other side ended early", ""};
  if (got == (ssize_t)sizeof failure) memcpy(&failure, message, sizeof failure);
  message->failure = failure;
  return -1;
}

/* What came with the caller's environment and heap is no business of the container. */
static void forget_environment(void) {
  for (char **variable = environ; variable != NULL && *variable != NULL; variable++)
    memset(*variable, 0, strlen(*variable));
}

void set_namespaces_up(const struct plan *plan) {
  const struct record *r = plan_find(plan, OP_HOSTNAME);
  char path[4400];
  if (r != NULL && sethostname(r->f[0].text, strlen(r->f[0].text)) != 0) fail("sethostname", r->f[0].text);
  if ((r = plan_find(plan, OP_DOMAINNAME)) != NULL && setdomainname(r->f[0].text, strlen(r->f[0].text)) != 0)
    fail("setdomainname", r->f[0].text);
  if (plan_find(plan, OP_LOOPBACK) != NULL && loopback_up() != 0) fail("bring up loopback", "lo");
  for (size_t at = 0; (r = plan_next(plan, OP_SYSCTL, &at)) != NULL;) {
    snprintf(path, sizeof path, "/proc/sys%s", r->f[0].text);
    if (write_text(path, r->f[1].text) != 0) fail("write sysctl", r->f[0].text);
  }
}

static void join_keyring(const struct init *init, uint64_t options) {
  char ring[300];
  if (options & OPTION_NO_KEYRING) return;
  snprintf(ring, sizeof ring, "_ses.%s", plan_find(init->plan, OP_ID)->f[0].text);
  if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, ring) < 0 && errno != ENOSYS && errno != EDQUOT)
    fail("join session keyring", ring);
}

void use_terminal(const struct init *init, int pts, int bind_console) {
  if (pts < 0) fail("open", "/dev/pts");
  int slave, master = open_terminal(plan_find(init->plan, OP_CONSOLE), pts, &slave);
  char name[64];
  unsigned number = 0;
  const struct record *process = plan_find(init->plan, OP_PROCESS);
  if (ioctl(master, TIOCGPTN, &number) != 0) fail("name terminal", "");
  snprintf(name, sizeof name, "/dev/pts/%u", number);
  if (fchown(slave, (uid_t)process->f[0].number, (gid_t)-1) != 0 && errno != EINVAL && errno != EPERM)
    fail("chown terminal", name);
  if (send_descriptor(init->console, master, name) != 0) fail("send terminal", name);
  close(init->console);
  close(master);
  if (bind_console) {
    int place = open_target("/dev/console", 2);
    if (place < 0) fail("create", "/dev/console");
    bind_descriptor(slave, place, "/dev/console");
  }
  if (ioctl(slave, TIOCSCTTY, 0) != 0) fail("make controlling terminal", name);
  for (int fd = 0; fd < 3; fd++) {
    if (dup2(slave, fd) < 0) fail("connect terminal", name);
  }
  if (slave > 2) close(slave);
  close(pts);
}

/* `start` comes through the socket; a failure after that goes back on it. Its end is close-on-exec: success closes it. */
static void wait_for_start(const struct init *init) {
  int connection;
  while ((connection = accept4(init->listener, NULL, NULL, SOCK_CLOEXEC)) < 0 && errno == EINTR) continue;
  if (connection < 0) fail("wait for start", "");
  close(init->listener);
  failure_fd = connection;
}

static void begin(const struct init *init, struct message *message) {
  close(init->sync[0]);
  if (init->container->folder >= 0) close(init->container->folder);
  failure_fd = init->sync[1];
  if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0) fail("set parent death signal", "");
  forget_environment();
  if (expect(init->sync[1], MESSAGE_GO, message) != 0) _exit(126); /* Until then the caller may write id maps, which wants it dumpable. */
  if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) fail("set not dumpable", "");
}

static void must_run(const struct plan *plan, enum hook_when when, const char *state, const char *folder, const char *name) {
  if (run_hooks(plan, when, state, folder) == 0) return;
  errno = ECANCELED, fail("run hooks", name);
}

void init_container(void *context) {
  const struct init *init = context;
  const struct plan *plan = init->plan;
  struct message message;
  uint64_t namespaces = plan_find(plan, OP_NAMESPACES)->f[0].number;
  uint64_t options = plan_find(plan, OP_OPTIONS)->f[0].number;
  begin(init, &message);
  if (!needs_helper(plan)) join_cgroups(plan);
  pid_t outside = (pid_t)message.number;
  if (namespaces & CLONE_NEWUSER) become_root_there();
  if ((namespaces & CLONE_NEWCGROUP) && unshare(CLONE_NEWCGROUP) != 0) fail("unshare cgroup", "");
  if (setsid() < 0) fail("setsid", "");
  join_keyring(init, options);
  set_namespaces_up(plan);
  mount_everything(plan);
  if (tell(init->sync[1], MESSAGE_HOOKS, 0) != 0 || expect(init->sync[1], MESSAGE_GO, &message) != 0) _exit(126);
  const char *bundle = plan_find(plan, OP_BUNDLE)->f[0].text;
  char *state = state_json(init->container, STATUS_CREATING, outside);
  must_run(plan, HOOK_CREATE_CONTAINER, state, bundle, "createContainer");
  if (plan_find(plan, OP_CONSOLE) != NULL) use_terminal(init, open_in_root("/dev/pts", O_RDONLY | O_DIRECTORY), 1);
  protect_paths(plan);
  change_root(plan);
  /* Would the program be found? Said here, where the caller still listens. */
  execute(list_of(plan, OP_ARGUMENT), list_of(plan, OP_ENVIRONMENT), 1);
  if (tell(init->sync[1], MESSAGE_BUILT, 0) != 0 || expect(init->sync[1], MESSAGE_GO, &message) != 0) _exit(126);
  /* The front is about to end, and the container to live on. */
  if (prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0) != 0) fail("clear parent death signal", "");
  close(init->sync[1]);
  wait_for_start(init);
  free(state);
  state = state_json(init->container, STATUS_CREATED, outside);
  must_run(plan, HOOK_START_CONTAINER, state, "/", "startContainer");
  become(plan, plan_find(plan, OP_SECCOMP));
}

void init_exec(void *context) {
  const struct init *init = context;
  struct message message;
  begin(init, &message);
  if (setsid() < 0) fail("setsid", "");
  if (plan_find(init->plan, OP_CONSOLE) != NULL)
    use_terminal(init, open("/dev/pts", O_RDONLY | O_DIRECTORY | O_CLOEXEC), 0);
  prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0);
  become(init->plan, plan_find(&init->container->plan, OP_SECCOMP));
}
